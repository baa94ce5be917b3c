"""What converting and loading a published tokenizer of full size takes.

    python -m benchmarks.conversion [--model vqgan_imagenet_f16_16384] [--only WORK]

A checkpoint of random weights is written by our own writer, with the networks of its
loss, as published ones have them. All is done in processes of their own, so that each
peak of memory is that of one kind of work; the first only imports what all need, and
what it takes is in the others too.

Where PyTorch is importable the last one compares: a PyTorch twin of the model reads the
checkpoint by `torch.load`, and both turn one picture into codes and codes into a
picture, by turns. On a busy machine use one core (`taskset -c 0`) and read the
processor's time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import taming_jax
from taming_jax.interop import configurations
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.known import KNOWN
from taming_jax.interop.layout import layout
from taming_jax.interop.tables import to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import shapes_of
from taming_jax.models.vqgan import VQGAN, blank
from taming_jax.training.recipe import VQGANRecipe

CHILD = """
import json, resource, time
import jax
import taming_jax.pretrained, taming_jax.interop.convert
from benchmarks import conversion
found, began = {{}}, time.perf_counter()
{work}
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"s": round(seconds, 2), "peak_mb": round(peak), **found}}))
"""
WORK = {
    "imports": "",
    "write": "conversion.write_checkpoint({name!r}, {file!r})",
    "convert": "taming_jax.interop.convert_checkpoint({file!r}, {name!r}, {output!r})",
    "load": "jax.block_until_ready(taming_jax.load_vqgan({output!r}).params)",
    "load_bfloat16": "jax.block_until_ready("
    "taming_jax.load_vqgan({output!r}, 'bfloat16').params)",
    "compare": "found = conversion.compare({name!r}, {file!r}, {output!r})",
}
ROUNDS = 3  # of the comparison


def main() -> None:
    """Measures each kind of work and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vqgan_imagenet_f16_16384", choices=KNOWN)
    parser.add_argument("--only", choices=WORK, help="and what it needs")
    arguments = parser.parse_args()
    name, only = arguments.model, arguments.only
    with tempfile.TemporaryDirectory() as folder:
        file, output = (str(Path(folder) / part) for part in ("model.ckpt", "out"))
        figures = {"model": name}
        needed = {"write", "convert", only} if only else WORK.keys()
        for kind, work in WORK.items():
            if kind not in needed:
                continue
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
        "perceptual": shapes_of(),
    }
    rng = np.random.default_rng(0)

    def drawn(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) == 4 else 1
        return rng.standard_normal(leaf.shape, np.float32) / np.float32(fan_in**0.5)

    tree = jax.tree.map(drawn, tree)
    table = layout(tokenizer.model, fields, tokenizer.form)
    write_torch(path, {"state_dict": to_theirs(table, tree), "global_step": 1})


def compare(name: str, file: str, converted: str) -> dict[str, float | str]:
    """Codes and pictures of the converted model and of a PyTorch twin of the original.

    Returns the share of equal codes, the largest difference of a pixel, and the best
    of each one's rounds.
    """
    try:
        import torch
    except ImportError:
        return {"torch": "not installed"}
    from benchmarks.torch_first_stage import TorchFirstStage

    tokenizer = configurations.read(name)["vqgan"]
    section = {"model": tokenizer.model, "learning_rate": 1.0, "steps": 1}
    recipe = VQGANRecipe.from_config(section | {"batch_size": 1})
    tensors = torch.load(file, weights_only=True)["state_dict"]
    twin = TorchFirstStage(recipe, {n: t.numpy() for n, t in tensors.items()})
    ours = taming_jax.load_vqgan(converted)
    size = tokenizer.model["encoder"]["resolution"]
    images = np.random.default_rng(1).uniform(-1, 1, (1, size, size, 3))
    images = images.astype(np.float32)
    theirs = twin.put(images.transpose(0, 3, 1, 2))

    codes = np.asarray(ours.encode(images))
    with torch.no_grad():
        same = (twin.codes_of(theirs).numpy() == codes).mean()
        given = torch.from_numpy(codes.astype(np.int64))
        pictures = twin.images_of(given).numpy().transpose(0, 2, 3, 1)
        apart = np.abs(np.asarray(ours.decode(codes)) - pictures).max()
        ways = {
            "encode": lambda: np.asarray(ours.encode(images)),
            "torch_encode": lambda: twin.codes_of(theirs),
            "decode": lambda: np.asarray(ours.decode(codes)),
            "torch_decode": lambda: twin.images_of(given),
        }
        taken = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, call in ways.items():
                began = time.perf_counter(), time.process_time()
                call()
                ended = time.perf_counter(), time.process_time()
                taken[way].append(np.subtract(ended, began))
    found = {"same_codes": float(same), "largest_difference": float(apart)}
    for way, pairs in taken.items():
        wall, cpu = np.min(pairs, axis=0)
        found[f"{way}_images_per_s"] = round(1 / wall, 3)
        found[f"{way}_cpu_s"] = round(cpu, 2)
    return found


def made(module, inputs):
    """The shapes of a module's variables."""
    init = partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), inputs)


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
