"""The first stage as people train it in PyTorch: eager, in the original's order.

    images [B,C,H,W] -> encoder -> quantizer -> decoder -> images, and their losses

A step has two halves. The generator's: forward, the losses, the adaptive weight by two
gradients at the last kernel, backward, Adam. The discriminator's: forward anew through
what was just updated, its loss, backward, Adam. The networks are in `torch_networks`.
"""

import contextlib
from collections.abc import Mapping

import numpy as np
import torch  # noqa: TID253 (this file is about it)
import torch.nn.functional as nnf  # noqa: TID253

from benchmarks.first_stage_cases import check_twin
from benchmarks.torch_networks import JUDGE, LPIPS, TorchNetworks
from taming_jax.training.nll import IMAGE_TERMS
from taming_jax.training.phases import Phase
from taming_jax.training.recipe import VQGANRecipe

LAST = "decoder.conv_out.weight"


class TorchFirstStage(TorchNetworks):
    """A VQGAN, its discriminator and its losses with our weights.

    recipe: what is to be trained; the quantizer must be `vq`.
    tensors: by the original's names, see `taming_jax.interop.layout`.
    channels_last: how pictures and kernels lie in memory.
    half: forward passes under autocast to bfloat16.
    compiled: networks by `torch.compile`.

    Raises:
      ValueError: for another quantizer.
    """

    def __init__(
        self,
        recipe: VQGANRecipe,
        tensors: Mapping[str, np.ndarray],
        *,
        device: str = "cpu",
        channels_last: bool = False,
        half: bool = False,
        compiled: bool = False,
    ):
        check_twin(recipe.model)
        self.loss = recipe.loss
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.device, self.half = device, half
        tensors = {n: self.put(t) for n, t in tensors.items() if t.dtype == np.float32}
        super().__init__(recipe.model, tensors)
        learned = {n: t for n, t in self.w.items() if "running_" not in n}
        self.judges = {n: t for n, t in learned.items() if n.startswith(JUDGE)}
        self.generates = {n: t for n, t in learned.items() if not n.startswith("loss.")}
        self.average = {n: t.clone() for n, t in self.generates.items()}
        for tensor in (*self.judges.values(), *self.generates.values()):
            tensor.requires_grad_(True)
        self.settings = recipe.optimizer
        self.decay = recipe.run.ema_decay
        self.optimizer = _adam(self.generates, recipe.optimizer)
        self.disc_optimizer = _adam(self.judges, recipe.disc_optimizer)
        if compiled:
            for part in ("encode", "decode_latents", "judge", "features"):
                setattr(self, part, torch.compile(getattr(self, part)))

    def put(self, array) -> torch.Tensor:
        """An array on the device, pictures and kernels in the chosen format."""
        tensor = torch.from_numpy(np.array(array)).to(self.device)
        lies = self.format if tensor.ndim == 4 else torch.contiguous_format
        return tensor.contiguous(memory_format=lies)

    def step(self, x: torch.Tensor, phase: Phase) -> dict[str, torch.Tensor]:
        """Both halves on images float32 [B,C,H,W]; the terms of the losses."""
        for tensor in self.judges.values():
            tensor.requires_grad_(False)
        terms = self.generator_half(x, phase)
        if phase.judged:
            for tensor in self.judges.values():
                tensor.requires_grad_(True)
            terms["disc_loss"] = self.discriminator_half(x)
        with torch.no_grad():
            new = list(self.generates.values())
            torch._foreach_lerp_(list(self.average.values()), new, 1 - self.decay)
        return {name: term.detach() for name, term in terms.items()}

    def generator_half(self, x, phase: Phase) -> dict[str, torch.Tensor]:
        """Forward, losses, adaptive weight, backward, Adam."""
        x_hat, codebook_loss, _ = self.reconstruct(x, frozen=phase.frozen)
        terms = self.terms(x, x_hat)
        nll = sum(getattr(self.loss, f"{n}_weight") * t for n, t in terms.items())
        total = nll + self.loss.codebook_weight * codebook_loss
        terms["codebook_loss"] = codebook_loss
        if phase.judged:
            adversarial = -self.asked(x_hat).mean()
            weight = torch.ones((), device=x.device)
            if self.loss.adaptive_weight:
                at = self.w[LAST]
                pulls = (
                    torch.autograd.grad(term, at, retain_graph=True)[0].norm()
                    for term in (nll, adversarial)
                )
                weight = (next(pulls) / (next(pulls) + 1e-4)).clamp(0, 1e4).detach()
            total = total + self.loss.adversarial_weight * weight * adversarial
            terms |= {"adversarial": adversarial, "adaptive_weight": weight}
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.generates.values(), self.settings.clip)
        self.optimizer.step()
        return terms

    def discriminator_half(self, x) -> torch.Tensor:
        """Forward through the new generator, hinge loss, backward, Adam."""
        with torch.no_grad():
            x_hat, _, _ = self.reconstruct(x)
        real, fake = self.asked(x), self.asked(x_hat)
        loss = 0.5 * (nnf.relu(1 - real).mean() + nnf.relu(1 + fake).mean())
        self.disc_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.disc_optimizer.step()
        return loss

    def reconstruct(self, x, frozen: bool = False):
        """-> reconstructions, codebook loss, codes [B,h,w]; frozen: codes do not learn.

        Convolutions under autocast; the codebook in float32.
        """
        with torch.no_grad() if frozen else contextlib.nullcontext():
            with self.autocast():
                z = self.encode(x)
            z, loss, codes = self.quantize(z.float())
        with self.autocast():
            return self.decode_latents(z).float(), loss, codes

    def autocast(self):
        """The context of the networks' forward passes."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.half)

    def quantize(self, z):
        """Nearest codes, straight through: [B,D,h,w] -> the same, loss, codes."""
        settings, table = self.model["quantizer"], self.w["quantize.embedding.weight"]
        z = z.permute(0, 2, 3, 1)
        if settings.get("normalize"):
            z, table = nnf.normalize(z, dim=-1), nnf.normalize(table, dim=-1)
        flat = z.reshape(-1, z.shape[-1])
        with torch.no_grad():
            distances = table.square().sum(1) - 2 * flat @ table.T
            codes = distances.argmin(1).view(z.shape[:-1])
        q = nnf.embedding(codes, table)
        terms = [(z.detach() - q).square().mean(), (z - q.detach()).square().mean()]
        weights = [1.0, settings.get("beta", 0.25)]
        if settings.get("legacy"):
            weights.reverse()
        loss = sum(weight * term for weight, term in zip(weights, terms, strict=True))
        return (z + (q - z).detach()).permute(0, 3, 1, 2), loss, codes

    def codes_of(self, x):
        """Images [B,C,H,W] -> codes [B,h,w]."""
        with self.autocast():
            z = self.encode(x)
        return self.quantize(z.float())[2]

    def images_of(self, codes):
        """Codes [B,h,w] -> images [B,C,H,W], clipped."""
        table = self.w["quantize.embedding.weight"]
        if self.model["quantizer"].get("normalize"):
            table = nnf.normalize(table, dim=-1)
        z = nnf.embedding(codes, table).permute(0, 3, 1, 2)
        with self.autocast():
            return self.decode_latents(z).float().clamp(-1, 1)

    def asked(self, x):
        """The discriminator's logits, float32."""
        with self.autocast():
            return self.judge(x).float()

    def terms(self, x, x_hat) -> dict[str, torch.Tensor]:
        """What of the reconstruction is wrong; what has no weight is left out."""
        counted = [n for n in IMAGE_TERMS if getattr(self.loss, f"{n}_weight")]
        return {name: getattr(self, name)(x, x_hat) for name in counted}

    def l1(self, x, x_hat):
        """mean |x - x_hat|."""
        return (x - x_hat).abs().mean()

    def l2(self, x, x_hat):
        """mean (x - x_hat)^2."""
        return (x - x_hat).square().mean()

    def difference(self, x, x_hat):
        """L1 of differences between neighbours."""
        error = x - x_hat
        return sum(error.diff(dim=dim).abs().mean() for dim in (2, 3))

    def sharpness(self, x, x_hat):
        """mean |s(x) - s(x_hat)|, see `taming_jax.losses`."""

        def sharp(images):
            down, across = (images.diff(dim=dim).square() for dim in (2, 3))
            squares = (down[..., :-1] + across[:, :, :-1]).mean(1, keepdim=True)
            squares = nnf.avg_pool2d(nnf.pad(squares, (1, 2, 1, 2)), 4, 2)
            return (squares + 1e-5).sqrt()

        return (sharp(x) - sharp(x_hat)).abs().mean()

    def perceptual(self, x, x_hat):
        """LPIPS, mean over the batch."""
        with self.autocast():
            pairs = zip(self.features(x), self.features(x_hat), strict=True)
        total = 0.0
        for i, (f, g) in enumerate(pairs):
            f, g = (a.float() / (a.float().norm(dim=1, keepdim=True) + 1e-10)
                    for a in (f, g))  # fmt: skip
            head = self.w[f"{LPIPS}.lin{i}.model.1.weight"]
            total = total + nnf.conv2d((f - g).square(), head).mean()
        return total


def _adam(tensors, settings):
    make = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return make(
        list(tensors.values()), lr=settings.learning_rate,
        betas=(settings.b1, settings.b2), weight_decay=settings.weight_decay,
    )  # fmt: skip
