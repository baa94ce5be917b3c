"""Compiled programs: `jax.jit` as each backend wants it, and kept between runs."""

import functools
import hashlib
import platform
from collections.abc import Callable
from pathlib import Path

import jax

from taming_jax.user_cache import user_cache

# XLA hands convolutions, products and sums on CPUs to YNNPACK. Without AVX-512 that
# takes several times longer than XLA's own for the gradient by the kernel: a training
# step was 1.4 times slower (AMD EPYC, jax 0.10.2). With AVX-512 convolutions are the
# faster for it: the paper's step at 32 channels took 1.25 times as long without,
# decoding 1.3 times. A transformer is not: it drew 1.5 times as fast without.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def jit(function: Callable, *, convolutions: bool = False, **settings) -> Callable:
    """`jax.jit(function, **settings)` for a whole program, not for a part of one.

    convolutions: whether they are what it mostly does.

    On CPUs nothing is donated: XLA would first copy whatever more than one of its loops
    reads, which is most of a train state. A small step took a fifth longer.
    """
    if jax.default_backend() == "cpu":
        settings.pop("donate_argnums", None)
    options = _compiler_options(convolutions)
    return jax.jit(function, compiler_options=options, **settings)


def keep_programs() -> None:
    """Has jax keep compiled programs in the user's cache directory.

    A directory that was chosen already, JAX_COMPILATION_CACHE_DIR for example, stays.
    Home directories are shared by machines that do not have the same instructions, so
    that each kind of processor has a directory of its own.
    """
    if jax.config.jax_compilation_cache_dir is None:
        directory = user_cache() / "programs" / _processor()
        jax.config.update("jax_compilation_cache_dir", str(directory))
        # A start is made of dozens of programs that each take less than jax's second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    """Eight hex digits that machines with the same instructions share."""
    described = platform.machine() + platform.processor() + instructions()
    return hashlib.blake2b(described.encode(), digest_size=4).hexdigest()


@functools.cache
def instructions() -> str:
    """What the processor can do, in one line, as Linux says it; elsewhere nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = ("flags", "Features")  # as x86 and Arm call them
    return next((line for line in lines if line.startswith(named)), "")


@functools.cache
def _compiler_options(convolutions: bool) -> dict[str, str] | None:
    if jax.default_backend() != "cpu":
        return None
    if convolutions and "avx512f" in instructions().split():
        return None
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS)(0)
    except jax.errors.JaxRuntimeError:  # this version of XLA has no such option
        return None
    return CPU_OPTIONS
