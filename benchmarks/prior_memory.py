"""The memory that loading a prior takes, beside its own size.

    python -m benchmarks.prior_memory [--width 1024 --layers 24 --dtype bfloat16]

Writes an exported prior of random numbers, loads it in a process of its own, and
compares what that has had at most with what the weights take. The largest array is one
kernel of all layers; the goal is the size of the model and of that array.

    parameters | dtype | its size | largest array | at most, above an idle process
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    """Measures one model and prints a line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--width", type=int, default=1_024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--load", help="what a process of its own is asked for")
    args = parser.parse_args()
    if args.load:
        print(json.dumps(load(args.load, args.dtype)))
        return
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), args.width, args.layers)
        command = [sys.executable, "-m", "benchmarks.prior_memory"]
        command += ["--dtype", args.dtype, "--load", directory]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(output.stdout.splitlines()[-1])
    sizes = [found[name] / 2**20 for name in ("size", "largest", "peak")]
    print(
        f"{found['parameters'] / 1e6:.0f}M | {args.dtype} | {sizes[0]:.0f} MiB | "
        f"{sizes[1]:.0f} MiB | {sizes[2]:.0f} MiB = size + "
        f"{(sizes[2] - sizes[0]) / sizes[1]:.2f} of the largest array"
    )


def write(directory: Path, width: int, layers: int) -> None:
    """An exported prior in the form of the paper's, float32, without a tokenizer."""
    from taming_jax import stored
    from taming_jax.interop.prior_form import Prior
    from taming_jax.interop.priors import find_shapes

    model = {"width": width, "layers": layers, "heads": width // 64, "length": 256}
    prior = Prior(model, {}, codes=1_024, grid=(16, 16), classes=10)
    record = {
        "stage": "prior",
        "step": 0,
        "config": {"prior": prior.section() | {"learning_rate": 1e-4}},
        "facts": prior.facts({}),
    }
    rng = np.random.default_rng(0)
    arrays = (
        (name, rng.standard_normal(like.shape, np.float32))
        for name, like in find_shapes(prior).items()
    )
    stored.write_parts(directory / "prior", record, arrays, dtype="float32")


def load(directory: str, dtype: str) -> dict:
    """What loading takes, in bytes; in a process that has done nothing else."""
    import jax

    from taming_jax import load_prior

    jax.block_until_ready(jax.numpy.zeros(8) + 1)
    idle = peak()
    prior = load_prior(directory, dtype=dtype)
    jax.block_until_ready(prior.params)
    leaves = jax.tree.leaves(prior.params)
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "size": sum(leaf.nbytes for leaf in leaves),
        "largest": max(leaf.nbytes for leaf in leaves),
        "peak": peak() - idle,
    }


def peak() -> int:
    """The most memory that this process has had; what began it is not counted."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main()
