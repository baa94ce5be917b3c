"""The first stage's networks in PyTorch, with weights by the original's names.

Which blocks there are is read from the names. Pictures and latents are [B,C,H,W].
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch  # noqa: TID253 (this file is about it)
import torch.nn.functional as nnf  # noqa: TID253

from taming_jax.models.perceptual import SCALE, SHIFT

JUDGE, LPIPS = "loss.discriminator.main", "loss.perceptual_loss"
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


class TorchNetworks:
    """Encoder, decoder, discriminator and VGG16.

    model: fields of our `VQGAN`, for what the names do not say.
    w: the tensors, "encoder.conv_in.weight" for instance.
    """

    def __init__(self, model: Mapping[str, Any], w: Mapping[str, torch.Tensor]):
        self.model, self.w = model, w

    def encode(self, x):
        """Images [B,C,H,W] -> latents [B,D,h,w], not yet quantized."""
        fields = self.model["encoder"]
        x = self.conv(fold(x, fields.get("patch_size", 1)), "encoder.conv_in")
        levels = len(fields["multipliers"])
        for level in range(levels):
            x = self.blocks(x, f"encoder.down.{level}", "encoder")
            if level < levels - 1:
                name = f"encoder.down.{level}.downsample.conv"
                if fields.get("resample", "conv") == "patch":
                    x = self.conv(fold(x, 2), name)
                else:
                    x = self.conv(nnf.pad(x, (0, 1, 0, 1)), name, stride=2, padding=0)
        x = self.swished(self.middle(x, "encoder"), "encoder.norm_out", "encoder")
        return self.conv(self.conv(x, "encoder.conv_out"), "quant_conv")

    def decode_latents(self, z):
        """Latents [B,D,h,w] -> images [B,C,H,W], not clipped."""
        fields = self.model["decoder"]
        x = self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in")
        x = self.middle(x, "decoder")
        for level in reversed(range(len(fields["multipliers"]))):
            x = self.blocks(x, f"decoder.up.{level}", "decoder")
            if level > 0:
                name = f"decoder.up.{level}.upsample.conv"
                if fields.get("resample", "conv") == "patch":
                    x = unfold(self.conv(x, name), 2)
                else:
                    x = self.conv(nnf.interpolate(x, scale_factor=2), name)
        x = self.swished(x, "decoder.norm_out", "decoder")
        return unfold(self.conv(x, "decoder.conv_out"), fields.get("patch_size", 1))

    def middle(self, x, half):
        """Block, attention if there is one, block."""
        x = self.block(x, f"{half}.mid.block_1", half)
        if f"{half}.mid.attn_1.q.weight" in self.w:
            x = self.attention(x, f"{half}.mid.attn_1", half)
        return self.block(x, f"{half}.mid.block_2", half)

    def blocks(self, x, level, half):
        """All blocks of a level that there are, each with its attention."""
        for i in itertools.count():
            if f"{level}.block.{i}.conv1.weight" not in self.w:
                return x
            x = self.block(x, f"{level}.block.{i}", half)
            if f"{level}.attn.{i}.q.weight" in self.w:
                x = self.attention(x, f"{level}.attn.{i}", half)
        return x

    def block(self, x, name, half):
        """A residual block."""
        y = self.conv(self.swished(x, f"{name}.norm1", half), f"{name}.conv1")
        y = self.conv(self.swished(y, f"{name}.norm2", half), f"{name}.conv2")
        if f"{name}.nin_shortcut.weight" in self.w:
            x = self.conv(x, f"{name}.nin_shortcut")
        return x + y

    def attention(self, x, name, half):
        """x + attention of one head over all places."""
        y = self.norm(x, f"{name}.norm", half)
        q, k, v = (
            self.conv(y, f"{name}.{part}").flatten(2).transpose(1, 2)[:, None]
            for part in "qkv"
        )  # [B, 1, T, C]
        y = nnf.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.conv(y.transpose(1, 2).reshape(x.shape), f"{name}.proj_out")

    def swished(self, x, name, half):
        """Swish of the normalised."""
        return nnf.silu(self.norm(x, name, half))

    def norm(self, x, name, half):
        """Group normalisation, if there is any."""
        groups = self.model[half].get("norm_groups", 32)
        if groups == 0:
            return x
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        return nnf.group_norm(x, groups, weight, bias, 1e-6)

    def conv(self, x, name, stride=1, padding=None):
        """A convolution; without `padding` height and width stay."""
        kernel, bias = self.w[f"{name}.weight"], self.w.get(f"{name}.bias")
        padding = kernel.shape[-1] // 2 if padding is None else padding
        return nnf.conv2d(x, kernel, bias, stride, padding)

    def judge(self, x):
        """PatchGAN: images [B,C,H,W] -> logits [B,1,h',w']."""
        x = nnf.leaky_relu(self.conv(x, f"{JUDGE}.0", 2, 1), 0.2)
        kernels = (n for n in self.w if n.startswith(JUDGE) and self.w[n].ndim == 4)
        numbers = sorted(int(name.split(".")[3]) for name in kernels)[1:]
        for n in numbers[:-1]:
            stride = 2 if n != numbers[-2] else 1
            x = self.conv(x, f"{JUDGE}.{n}", stride, 1)
            if f"{JUDGE}.{n + 1}.weight" in self.w:
                kept, scale = (
                    [self.w[f"{JUDGE}.{n + 1}.{end}"] for end in pair]
                    for pair in (("running_mean", "running_var"), ("weight", "bias"))
                )
                x = nnf.batch_norm(x, *kept, *scale, training=True)
            x = nnf.leaky_relu(x, 0.2)
        return self.conv(x, f"{JUDGE}.{numbers[-1]}", 1, 1)

    def features(self, x):
        """Five stages of VGG16."""
        shift, scale = (x.new_tensor(c).view(1, 3, 1, 1) for c in (SHIFT, SCALE))
        x, stages = (x - shift) / scale, []
        for stage, numbers in enumerate(VGG16, 1):
            if stages:
                x = nnf.max_pool2d(x, 2)
            for n in numbers:
                x = nnf.relu(self.conv(x, f"{LPIPS}.net.slice{stage}.{n}"))
            stages.append(x)
        return stages


def fold(x, size):
    """Patches into channels, in the order of our `space_to_depth`."""
    if size == 1:
        return x
    b, c, h, w = x.shape
    x = x.view(b, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, size * size * c, h // size, w // size)


def unfold(x, size):
    """The inverse of `fold`."""
    if size == 1:
        return x
    b, c, h, w = x.shape
    x = x.view(b, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, c // size**2, h * size, w * size)
