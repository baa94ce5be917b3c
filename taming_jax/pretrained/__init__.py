"""Trained models for people: what they can do, whole and checked."""

from taming_jax.pretrained.vqgan import PretrainedVQGAN, load_vqgan

__all__ = ["PretrainedVQGAN", "load_vqgan"]
