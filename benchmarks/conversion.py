"""What converting and loading a published tokenizer of full size takes.

    python -m benchmarks.conversion [--model vqgan_imagenet_f16_16384]

A checkpoint of random weights is written by our own writer, with the networks of its
loss, as published ones have them. All is done in processes of their own, so that each
peak of memory is that of one kind of work; the first only imports what all need, and
what it takes is in the others too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.interop import configurations
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.known import KNOWN
from taming_jax.interop.layout import layout
from taming_jax.interop.tables import to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import STAGES
from taming_jax.models.vqgan import VQGAN, blank

WIDTHS = (64, 128, 256, 512, 512)  # of VGG16's stages
CHILD = """
import json, resource, time
import jax
import taming_jax.pretrained, taming_jax.interop.convert
from benchmarks import conversion
began = time.perf_counter()
{work}
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"s": round(seconds, 2), "peak_mb": round(peak)}}))
"""
WORK = {
    "imports": "",
    "write": "conversion.write_checkpoint({name!r}, {file!r})",
    "convert": "taming_jax.interop.convert_checkpoint({file!r}, {name!r}, {output!r})",
    "load": "jax.block_until_ready(taming_jax.load_vqgan({output!r}).params)",
    "load_bfloat16": "jax.block_until_ready("
    "taming_jax.load_vqgan({output!r}, 'bfloat16').params)",
}


def main() -> None:
    """Measures each kind of work and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vqgan_imagenet_f16_16384", choices=KNOWN)
    name = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        file, output = (str(Path(folder) / part) for part in ("model.ckpt", "out"))
        figures = {"model": name}
        for kind, work in WORK.items():
            work = work.format(file=file, name=name, output=output)
            figures[kind] = measured(work)
        figures["checkpoint_mb"] = size_mb(Path(file))
        figures["converted_mb"] = sum(map(size_mb, Path(output).rglob("*.npz")))
    print(json.dumps(figures))


def write_checkpoint(name: str, path: str) -> None:
    """A whole checkpoint by its authors' names, discriminator and LPIPS included."""
    tokenizer = configurations.read(name)["vqgan"]
    fields = tokenizer.trained["discriminator"]
    module = VQGAN(**tokenizer.model)
    images = jnp.zeros((1, 256, 256, module.image_channels))
    model = made(module, blank(module, module.stride))
    tree = {
        "generator": {"params": model["params"]},
        "discriminator": made(Discriminator(**fields), images),
        "perceptual": lpips(),
    }
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), tree)
    table = layout(tokenizer.model, fields, tokenizer.form)
    write_torch(path, {"state_dict": to_theirs(table, tree), "global_step": 1})


def made(module, inputs):
    """The shapes of a module's variables."""
    init = partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), inputs)


def lpips():
    """The shapes of VGG16's convolutions and of the heads."""
    vgg, before = {}, 3
    for names, width in zip(STAGES, WIDTHS, strict=True):
        for name in names:
            shapes = {"kernel": (3, 3, before, width), "bias": (width,)}
            vgg[name] = {
                k: jax.ShapeDtypeStruct(s, "float32") for k, s in shapes.items()
            }
            before = width
    heads = {
        str(n): jax.ShapeDtypeStruct((w,), "float32") for n, w in enumerate(WIDTHS)
    }
    return {"vgg": vgg, "heads": heads}


def measured(work: str) -> dict[str, float]:
    """Seconds and peak memory of a process that imports and does the work."""
    program = CHILD.format(work=work)
    finished = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return json.loads(finished.stdout.splitlines()[-1])


def size_mb(path: Path) -> int:
    """Of a file, rounded."""
    return round(path.stat().st_size / 2**20)


if __name__ == "__main__":
    main()
