"""`jax.jit`, with what the compiler of the backend at hand should be told."""

import functools
from collections.abc import Callable

import jax

# XLA hands convolutions on CPUs to YNNPACK, which takes several times longer than
# XLA's own for the gradient by the kernel: a training step was 1.4 times slower with
# it (AMD EPYC without AVX-512, jax 0.10.2).
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def jit(function: Callable, **settings) -> Callable:
    """`jax.jit(function, **settings)` for a whole program, not for a part of one.

    On CPUs nothing is donated: XLA would first copy whatever more than one of its loops
    reads, which is most of a train state. A small step took a fifth longer.
    """
    if jax.default_backend() == "cpu":
        settings.pop("donate_argnums", None)
    return jax.jit(function, compiler_options=_compiler_options(), **settings)


@functools.cache
def _compiler_options() -> dict[str, str] | None:
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS)(0)
    except jax.errors.JaxRuntimeError:  # this version of XLA has no such option
        return None
    return CPU_OPTIONS
