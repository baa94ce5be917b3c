"""The device mesh, and where arrays live on it.

Axes `data`, `fsdp` and `tensor`: batches are split over data x fsdp; every array of
the train state over fsdp along its largest dimension that divides; what does not
divide (and everything where fsdp is 1) is replicated. State is created sharded.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from taming_jax.training import recipe

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def create_mesh(sizes: recipe.Mesh, devices=None) -> jax.sharding.Mesh:
    """A mesh of all devices (or of those given).

    Raises:
      ValueError: if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = [sizes.data, sizes.fsdp, sizes.tensor]
    given = " x ".join(f"{axis}={n}" for axis, n in zip(AXES, shape, strict=True))
    if shape.count(-1) > 1 or any(n != -1 and n < 1 for n in shape):
        raise ValueError(f"mesh {given}: sizes are at least 1, and one may be -1")
    fixed = int(np.prod([n for n in shape if n != -1]))
    if -1 in shape and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
    if np.prod(shape) != len(devices):
        raise ValueError(
            f"mesh {given} does not fit {len(devices)} devices: the sizes must "
            f"multiply to {len(devices)}; data=-1 takes what fsdp and tensor leave"
        )
    return jax.make_mesh(
        shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
    )


def check_batch(batch_size: int, accumulate: int, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError unless every device gets as many examples as the others."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * accumulate):
        unit = shards * accumulate
        nearest = max(unit, round(batch_size / unit) * unit)
        raise ValueError(
            f"batch_size={batch_size} cannot be split over data x fsdp = {shards} "
            f"devices and accumulate = {accumulate}: use a multiple of {unit}, "
            f"for instance {nearest}"
        )


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The first axis split over data x fsdp."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract_state: Any, mesh: jax.sharding.Mesh) -> Any:
    """The sharding of each array of a state given by shapes (`jax.eval_shape`)."""

    def place(array) -> NamedSharding:
        return NamedSharding(mesh, _spec(array.shape, mesh.shape["fsdp"]))

    return jax.tree.map(place, abstract_state)


def abstract_with_shardings(shapes: Any, shardings: Any) -> Any:
    """Shapes that say where they live: what a checkpoint is restored into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )


def _spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * largest, "fsdp")


def describe_devices(mesh: jax.sharding.Mesh) -> str:
    """One line about the devices; a loud warning if an accelerator lies idle."""
    devices = mesh.devices.flatten()
    accelerator = _idle_accelerator()
    if devices[0].platform == "cpu" and accelerator:
        print(
            f"WARNING: training on the CPU although this machine has {accelerator}: "
            "this jax is built for the CPU only. 'Accelerators' in the README says how "
            "to get another.",
            file=sys.stderr,
        )
    axes = " x ".join(f"{axis} {mesh.shape[axis]}" for axis in AXES)
    return (
        f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), mesh "
        f"{axes}, {jax.process_count()} process(es), jax {jax.__version__}"
    )


def _idle_accelerator() -> str | None:
    nodes = {"/dev/nvidia0": "an NVIDIA GPU", "/dev/kfd": "an AMD GPU",
             "/dev/accel0": "a TPU", "/dev/vfio/0": "a TPU"}  # fmt: skip
    return next((name for node, name in nodes.items() if Path(node).exists()), None)
