"""The device mesh, and where batches and states live on it.

Axes `data`, `fsdp` and `tensor`: batches are split over data x fsdp; the arrays of a
train state as the table in `sharding` says. State is created where it will live.
"""

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from taming_jax.training import recipe
from taming_jax.training.sharding import partition, path_of

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # what splits a batch; `tensor`, too, where it is spread


def create_mesh(sizes: recipe.Mesh, devices=None) -> jax.sharding.Mesh:
    """A mesh of all devices (or of those given).

    Raises:
      ValueError: if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = [sizes.data, sizes.fsdp, sizes.tensor]
    if shape.count(-1) > 1 or any(n != -1 and n < 1 for n in shape):
        raise ValueError(f"mesh {_say(shape)}: sizes are at least 1, and one may be -1")
    fixed = math.prod(n for n in shape if n != -1)
    fitted = [len(devices) // fixed if n == -1 else n for n in shape]
    if math.prod(fitted) != len(devices):
        nearest = " or ".join(_say(s) for s in _nearest(shape, len(devices)))
        raise ValueError(
            f"mesh {_say(shape)} does not fit {len(devices)} devices: the sizes must "
            f"multiply to {len(devices)}, for instance {nearest}; data=-1 takes what "
            "fsdp and tensor leave"
        )
    return jax.make_mesh(
        fitted, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
    )


def _nearest(shape: list[int], count: int) -> list[tuple[int, ...]]:
    """The two meshes of `count` devices that change the fewest sizes, and the least."""

    def distance(other):
        pairs = [(a, b) for a, b in zip(shape, other, strict=True) if a not in (-1, b)]
        return len(pairs), sum(abs(math.log(b / a)) for a, b in pairs), other[::-1]

    divisors = [n for n in range(1, count + 1) if count % n == 0]
    meshes = itertools.product(divisors, repeat=len(AXES))
    return sorted((m for m in meshes if math.prod(m) == count), key=distance)[:2]


def _say(shape) -> str:
    return " x ".join(f"{axis}={n}" for axis, n in zip(AXES, shape, strict=True))


def check_batch(
    batch_size: int, accumulate: int, mesh: jax.sharding.Mesh, axes=BATCH
) -> None:
    """Raises ValueError unless every device gets as many examples as the others."""
    shards = math.prod(mesh.shape[axis] for axis in axes)
    if batch_size % (shards * accumulate):
        unit = shards * accumulate
        nearest = max(unit, round(batch_size / unit) * unit)
        raise ValueError(
            f"batch_size={batch_size} cannot be split over {' x '.join(axes)} = "
            f"{shards} devices and accumulate = {accumulate}: use a multiple of "
            f"{unit}, for instance {nearest}"
        )


def check_heads(heads: int, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError unless `tensor` splits a transformer between its heads."""
    if heads % mesh.shape["tensor"]:
        shared = math.gcd(heads, mesh.size)
        fits = [str(n) for n in range(1, shared + 1) if shared % n == 0]
        raise ValueError(
            f"mesh tensor={mesh.shape['tensor']} does not divide the prior's "
            f"heads={heads}, of which none can be split: use tensor={' or '.join(fits)}"
        )


def left_to_the_compiler(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
    """The same mesh, of which the compiler says where intermediate values lie.

    `jax.make_mesh` leaves that to the code, unless it is told otherwise.
    """
    return jax.sharding.Mesh(mesh.devices, mesh.axis_names)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The first axis split over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def placed(batch: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """The rows of each array split over data x fsdp, where they can be split evenly.

    Else all rows on every device. Without a mesh, as they are.
    """
    if mesh is None:
        return batch
    shards = math.prod(mesh.shape[axis] for axis in BATCH)

    def place(array):
        split = len(array) % shards == 0
        return jax.device_put(array, (batch_sharding if split else replicated)(mesh))

    return jax.tree.map(place, batch)


def spread(batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """The batch split over all axes, for what has no other use of `tensor`.

    In a compiled function; each device goes on with a part of what it has.
    """
    if mesh.shape["tensor"] == 1:
        return batch
    everywhere = NamedSharding(mesh, PartitionSpec(AXES))
    return jax.lax.with_sharding_constraint(batch, everywhere)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract_state: Any, mesh: jax.sharding.Mesh) -> Any:
    """The sharding of each array of a state given by shapes (`jax.eval_shape`)."""

    def place(keys, array) -> NamedSharding:
        return NamedSharding(mesh, partition(path_of(keys), array.shape, mesh.shape))

    return jax.tree.map_with_path(place, abstract_state)


def abstract_with_shardings(shapes: Any, shardings: Any) -> Any:
    """Shapes that say where they live: what a checkpoint is restored into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )


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
