"""What tiles change, and what they save: a tokenizer on one large photograph.

    python -m benchmarks.tiling [--model shapes|f16] [--side 2048] [--tiles 256,512]

The photograph is scikit-image's astronaut, mirrored until it is large enough. `shapes`
is the bundled tokenizer, `f16` the paper's for ImageNet with random weights, a codebook
of 1,024 latents of the photograph among them, so that its codes vary. The whole and
each tile are done in processes of their own, each with its own peak of memory beyond
that of the model and the photograph (on Linux; on CPUs it holds the device's, too).
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
import numpy as np
from etils import epath

import taming_jax
from taming_jax.interop import configurations
from taming_jax.models.receptive import receptive_field
from taming_jax.models.vqgan import VQGAN, blank
from taming_jax.pretrained import PretrainedVQGAN
from taming_jax.units import from_uint8

TABLE = "table"  # what is done before the whole
COLUMNS = ("tile", "codes_differ", "largest", "mean", "encode_s", "decode_s", "peak_mb")


def main() -> None:
    """Does the whole, then the tiles, each in a process, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="shapes", choices=["shapes", "f16"])
    parser.add_argument("--side", type=int, default=2048, help="of the photograph")
    parser.add_argument("--tiles", default="256,512", help="sides, in pixels")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # of the processes
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one == TABLE:
        np.save(args.folder / "table.npy", latents(load(args.model)))
    elif args.one:
        done(args.model, args.side, int(args.one), args.folder)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Prints the table, row by row."""
    print(json.dumps({"model": args.model, **about(args.model)}))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        for tile in [TABLE, "0", *args.tiles.split(",")]:
            command = [sys.executable, "-m", "benchmarks.tiling", "--model", args.model]
            command += ["--side", str(args.side), "--one", tile, "--folder", folder]
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            if tile == TABLE:
                continue
            row = json.loads(finished.stdout.splitlines()[-1])
            print(f"| {' | '.join(str(row[name]) for name in COLUMNS)} |", flush=True)


def about(name: str) -> dict:
    """The receptive field, in pixels."""
    vqgan = load(name)
    encoder, decoder = receptive_field(vqgan.module)
    return {
        "stride": vqgan.stride,
        "encoder": encoder[:2],
        "decoder": [places * vqgan.stride for places in decoder[:2]],
        "sees_everything": encoder.everything or decoder.everything,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def done(name: str, side: int, tile: int, folder: Path) -> None:
    """One row of the table; tile 0 is the whole, which the others are compared with."""
    vqgan = load(name, folder / "table.npy")
    images = np.asarray(from_uint8(photograph(side)))
    at_rest = begin_measuring()
    codes, encode_s = timed(partial(vqgan.encode, images, tile or None))
    # The same codes for all, so that what differs is the decoder's doing.
    whole_codes = np.load(folder / "codes.npy") if tile else codes
    pictures, decode_s = timed(partial(vqgan.decode, whole_codes, tile or None))
    used = resident_mb("VmHWM") - at_rest
    if not tile:
        np.save(folder / "codes.npy", codes)
        np.save(folder / "pictures.npy", pictures)
    differences = np.abs(pictures - np.load(folder / "pictures.npy"))
    figures = (
        tile or "whole",
        f"{np.mean(codes != whole_codes):.2%}",
        f"{differences.max():.2g}",
        f"{differences.mean():.2g}",
        round(encode_s, 1),
        round(decode_s, 1),
        round(used),
    )
    print(json.dumps(dict(zip(COLUMNS, figures, strict=True))))


def load(name: str, table: Path | None = None) -> PretrainedVQGAN:
    """The bundled model, or the paper's with random weights and a table of codes."""
    if name == "shapes":
        return taming_jax.load_vqgan(name)
    model = configurations.read("vqgan_imagenet_f16_1024")["vqgan"].model
    module = VQGAN(**model)
    init = jax.jit(partial(module.init, train=False))
    params = init(jax.random.key(0), blank(module, module.stride))["params"]
    if table is not None:
        params["quantizer"] = {"embedding": np.load(table)}
    return PretrainedVQGAN(
        module,
        {"params": params},
        config={"vqgan": {"model": model}},
        directory=epath.Path(),
        step=0,
        fingerprint="",
    )


def latents(vqgan: PretrainedVQGAN) -> np.ndarray:
    """float32 [1024,D] of the photograph as it is."""
    apply = jax.jit(partial(vqgan.module.apply, method="latents"))
    images = from_uint8(photograph(32 * vqgan.stride))
    places = apply({"params": vqgan.params}, images)
    return np.asarray(places).reshape(-1, places.shape[-1])


def photograph(side: int) -> np.ndarray:
    """uint8 [1,side,side,3]."""
    from skimage.data import astronaut

    picture = astronaut()
    over = side - len(picture)
    padding = (0, max(over, 0)), (0, max(over, 0)), (0, 0)
    return np.pad(picture, padding, "symmetric")[None, :side, :side]


def timed(work):
    """(what the work gives, as numpy; seconds), its compilation included."""
    began = time.perf_counter()
    result = np.asarray(work())
    return result, time.perf_counter() - began


def begin_measuring() -> float:
    """What this process has in memory now; its peak begins here (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mb("VmRSS")


def resident_mb(kind: str) -> float:
    """Memory of this process, now (VmRSS) or at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
