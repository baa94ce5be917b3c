"""Which axes of the mesh the arrays of a train state are split over: one table.

    path, shape, sizes of the mesh -> partition -> where an array lies
    module -> at_use -> the module, for parameters that lie so

Optimizer states and averages mirror the parameters, and their paths end as those of
the parameters do: one rule holds for all of them.

Where an array lies is one thing, where it is used another. `fsdp` splits memory and the
batch, never a product (ZeRO, Rajbhandari et al. 2020): a parameter is gathered just
before it is used, a transformer's one block at a time, and its gradient is summed and
split again at once. `tensor` splits the transformer's products, too (Megatron, Shoeybi
et al. 2019): queries, keys, values and the hidden layer by columns, what leads back
from them by rows, so that each half of a block ends in one sum; embeddings and logits
by vocabulary. Activations need no rule: they follow the batch and the parameters.
Convolutions are whole along `tensor`, which splits their batch (`mesh.spread`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from taming_jax.models.transformer import Transformer

# How a path ends, and over what the axes of such an array are split, as far as it
# divides them. The first that fits holds; what fits none is split over fsdp along its
# largest axis that fsdp divides.
RULES = (
    # layers x width x (heads or hidden), and back
    (r"blocks/(query|key|value|up|gate)/kernel", P(None, "fsdp", "tensor")),
    (r"blocks/(query|key|value|up|gate)/bias", P(None, ("tensor", "fsdp"))),
    (r"blocks/(out|down)/kernel", P(None, "tensor", "fsdp")),
    (r"blocks/\w+/(bias|scale)", P(None, "fsdp")),
    # codes x dim
    (r"quantizer/embedding", P("fsdp", None)),
    # vocabulary x width, width x vocabulary
    (r"embedding(_above)?", P("tensor", "fsdp")),
    (r"head/kernel", P("fsdp", "tensor")),
    # counts and statistics, which are small and of the global batch
    (r"(codebook|usage|stats)/.+", P()),
)


def partition(path: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> P:
    """Where the array at `path`, such as "ema/blocks/query/kernel", lies.

    `sizes` are those of the axes `fsdp` and `tensor`.
    """
    for pattern, axes in RULES:
        if re.search(f"(^|/){pattern}$", path):
            return P(*map(lambda n, over: _dividing(n, over, sizes), shape, axes))
    divisible = [axis for axis, size in enumerate(shape) if size % sizes["fsdp"] == 0]
    if sizes["fsdp"] == 1 or not divisible:
        return P()
    largest = max(divisible, key=lambda axis: shape[axis])
    return P(*(None,) * largest, "fsdp")


def path_of(keys: Any) -> str:
    """The keys that a tree is walked by, as a path for `partition`."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def at_use(module: nn.Module | None, mesh: jax.sharding.Mesh) -> Any:
    """The module, whose `apply` gathers what `fsdp` has split; for compiled functions.

    Left to itself the compiler splits products along their inner axis as well, sums
    and gathers the activations of whole batches, and passes them around.
    """
    if module is None or mesh.shape["fsdp"] == 1:
        return module
    if isinstance(module, Transformer):
        layers = (module.layers,)

        def gather(block):
            return jax.tree.map_with_path(
                lambda keys, array: _gather(
                    array, f"blocks/{path_of(keys)}", mesh, layers
                ),
                block,
            )

        module = module.clone(gather=gather)
    return _AtUse(module, mesh)


@dataclasses.dataclass(frozen=True)
class _AtUse:
    module: nn.Module
    mesh: jax.sharding.Mesh

    def apply(self, variables: Mapping, *inputs, **settings):
        params = jax.tree.map_with_path(self._whole, variables["params"])
        return self.module.apply({**variables, "params": params}, *inputs, **settings)

    def __getattr__(self, name: str):
        return getattr(self.module, name)

    def _whole(self, keys, array):
        path = path_of(keys)
        if path.startswith("blocks/"):  # not all at once
            return array
        return _gather(array, path, self.mesh)


def _gather(array, path: str, mesh, stacked: tuple[int, ...] = ()):
    """The array, whole along `fsdp`; `stacked`: axes that it has where it lies."""
    lies = partition(path, (*stacked, *array.shape), mesh.shape)[len(stacked) :]
    for spec in (P(*lies), P(*map(_without_fsdp, lies))):  # gradients go backwards
        array = jax.lax.with_sharding_constraint(array, NamedSharding(mesh, spec))
    return array


def _without_fsdp(over):
    return tuple(axis for axis in _as_tuple(over) if axis != "fsdp") or None


def _dividing(size: int, over, sizes: Mapping[str, int]):
    """Those of the mesh's axes that divide an axis of `size`, one after another."""
    kept = []
    for axis in _as_tuple(over):
        if sizes[axis] > 1 and size % sizes[axis] == 0:
            kept.append(axis)
            size //= sizes[axis]
    return kept[0] if len(kept) == 1 else tuple(kept) or None


def _as_tuple(over) -> tuple[str, ...]:
    return (over,) if isinstance(over, str) else over or ()
