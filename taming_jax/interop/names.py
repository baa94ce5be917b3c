"""The original's models by name: https://github.com/CompVis/taming-transformers.

GENERATOR       encoder, quantizer, decoder         our side: "params"
  GUMBEL_         with the Gumbel quantizer           "params"
  EMA_            with the moving averages            variables by collection
DISCRIMINATOR   with BatchNorm, _ACTNORM with that  our side: variables by collection
PERCEPTUAL      VGG16 and heads of LPIPS            our side: models.perceptual's tree
whole(...)      a checkpoint of all these           our side: a dict of these three
GPT             the second stage's transformer      our side: "params"
"""

import numpy as np

from taming_jax.interop.tables import Row, Table, Transform, under
from taming_jax.models.perceptual import STAGES

SAME = Transform(lambda a: a, lambda a: a)
MATRIX = Transform(np.transpose, np.transpose)
KERNEL = Transform(lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))
PER_CHANNEL = Transform(np.ravel, lambda v: v.reshape(1, -1, 1, 1))
COLOURS = Transform(lambda w: w[:, :, 0, 0].T, lambda c: c.T[:, :, None, None])


def _conv(ours: str, theirs: str) -> Table:
    return (
        Row(f"{ours}/kernel", f"{theirs}.weight", KERNEL),
        Row(f"{ours}/bias", f"{theirs}.bias", SAME),
    )


def _norm(ours: str, theirs: str) -> Table:
    return (
        Row(f"{ours}/scale", f"{theirs}.weight", SAME),
        Row(f"{ours}/bias", f"{theirs}.bias", SAME),
    )


def _block(ours: str, theirs: str) -> Table:
    return (
        *_norm(f"{ours}/norm1", f"{theirs}.norm1"),
        *_conv(f"{ours}/conv1", f"{theirs}.conv1"),
        *_norm(f"{ours}/norm2", f"{theirs}.norm2"),
        *_conv(f"{ours}/conv2", f"{theirs}.conv2"),
        *_conv(f"{ours}/shortcut", f"{theirs}.nin_shortcut"),
    )


def _attention(ours: str, theirs: str) -> Table:
    return (
        *_norm(f"{ours}/norm", f"{theirs}.norm"),
        *_conv(f"{ours}/q", f"{theirs}.q"),
        *_conv(f"{ours}/k", f"{theirs}.k"),
        *_conv(f"{ours}/v", f"{theirs}.v"),
        *_conv(f"{ours}/out", f"{theirs}.proj_out"),
    )


_ENDS = (
    *_conv("conv_in", "conv_in"),
    *_block("middle_block_1", "mid.block_1"),
    *_attention("middle_attention", "mid.attn_1"),
    *_block("middle_block_2", "mid.block_2"),
    *_norm("norm_out", "norm_out"),
    *_conv("conv_out", "conv_out"),
)

ENCODER = (
    *_ENDS,
    *_block("down_{i}_block_{j}", "down.{i}.block.{j}"),
    *_attention("down_{i}_attention_{j}", "down.{i}.attn.{j}"),
    *_conv("down_{i}_resample", "down.{i}.downsample.conv"),
)

DECODER = (
    *_ENDS,
    *_block("up_{i}_block_{j}", "up.{i}.block.{j}"),
    *_attention("up_{i}_attention_{j}", "up.{i}.attn.{j}"),
    *_conv("up_{i}_resample", "up.{i}.upsample.conv"),
)


def _generator(quantizer: Table) -> Table:
    return (
        *under("encoder/", "encoder.", ENCODER),
        *_conv("quant_conv", "quant_conv"),
        *under("quantizer/", "quantize.", quantizer),
        *_conv("post_quant_conv", "post_quant_conv"),
        *under("decoder/", "decoder.", DECODER),
    )


VQ_QUANTIZER = (Row("embedding", "embedding.weight", SAME),)
GUMBEL_QUANTIZER = (*_conv("proj", "proj"), Row("embedding", "embed.weight", SAME))
AVERAGES = (
    Row("sizes", "embedding.cluster_size", SAME),
    Row("sums", "embedding.embed_avg", SAME),
)

GENERATOR = _generator(VQ_QUANTIZER)
GUMBEL_GENERATOR = _generator(GUMBEL_QUANTIZER)
EMA_GENERATOR = (
    *under("params/", "", GENERATOR),
    *under("codebook/quantizer/", "quantize.", AVERAGES),
)


def _batch_norm(ours: str, theirs: str) -> Table:
    return (
        *_norm(f"params/{ours}", theirs),
        Row(f"batch_stats/{ours}/mean", f"{theirs}.running_mean", SAME),
        Row(f"batch_stats/{ours}/var", f"{theirs}.running_var", SAME),
        Row(None, f"{theirs}.num_batches_tracked", SAME),
    )


def _act_norm(ours: str, theirs: str) -> Table:
    return (
        Row(f"params/{ours}/loc", f"{theirs}.loc", PER_CHANNEL),
        Row(f"params/{ours}/scale", f"{theirs}.scale", PER_CHANNEL),
        Row(f"batch_stats/{ours}/seen", f"{theirs}.initialized", SAME),
    )


def _discriminator(norm) -> Table:
    """Name up to eight layers; theirs are numbered through, activations included."""
    rows = _conv("params/conv_0", "main.0")
    for n in range(1, 9):
        rows += _conv(f"params/conv_{n}", f"main.{3 * n - 1}")
        rows += norm(f"norm_{n}", f"main.{3 * n}")
    return rows


DISCRIMINATOR = _discriminator(_batch_norm)
DISCRIMINATOR_ACTNORM = _discriminator(_act_norm)

# Torchvision's numbers of VGG16's convolutions, by stage.
_VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

PERCEPTUAL = (
    *(
        row
        for stage, (names, numbers) in enumerate(zip(STAGES, _VGG16, strict=True), 1)
        for name, number in zip(names, numbers, strict=True)
        for row in _conv(f"vgg/{name}", f"net.slice{stage}.{number}")
    ),
    Row("heads/{i}", "lin{i}.model.1.weight", PER_CHANNEL),
    Row(None, "scaling_layer.shift", SAME),
    Row(None, "scaling_layer.scale", SAME),
)


def whole(generator: Table, discriminator: Table = DISCRIMINATOR) -> Table:
    """A checkpoint of the first stage, the networks of its loss included."""
    return (
        *under("generator/", "", generator),
        *under("discriminator/", "loss.discriminator.", discriminator),
        *under("perceptual/", "loss.perceptual_loss.", PERCEPTUAL),
    )


def _linear(ours: str, theirs: str) -> Table:
    return (
        Row(f"{ours}/kernel", f"{theirs}.weight", MATRIX),
        Row(f"{ours}/bias", f"{theirs}.bias", SAME),
    )


_GPT_BLOCK = (
    *_norm("norm1", "ln1"),
    *_linear("query", "attn.query"),
    *_linear("key", "attn.key"),
    *_linear("value", "attn.value"),
    *_linear("out", "attn.proj"),
    *_norm("norm2", "ln2"),
    *_linear("up", "mlp.0"),
    *_linear("down", "mlp.2"),
    Row(None, "attn.mask", SAME),
)

GPT = (
    Row("embedding", "tok_emb.weight", SAME),
    Row("positions", "pos_emb", Transform(lambda p: p[0], lambda p: p[None])),
    *under("blocks/", "blocks.{layer}.", _GPT_BLOCK),
    *_norm("norm_out", "ln_f"),
    Row("head/kernel", "head.weight", MATRIX),
)
