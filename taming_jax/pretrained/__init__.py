"""Trained models for people: what they can do, whole and checked."""

from taming_jax.pretrained.loading import load_prior
from taming_jax.pretrained.prior import PretrainedPrior
from taming_jax.pretrained.vqgan import PretrainedVQGAN, load_vqgan

__all__ = ["PretrainedPrior", "PretrainedVQGAN", "load_prior", "load_vqgan"]
