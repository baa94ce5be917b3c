"""Where compiled programs are kept, seen in processes that have not begun yet."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from taming_jax import compilation

SCRIPT = """
import jax
from taming_jax.compilation import keep_programs
keep_programs()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.fixture
def kept_in(tmp_path):
    """Asks a new process where it keeps them, with these environment variables."""

    def ask(**variables):
        known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMP")}
        environment = known | {"XDG_CACHE_HOME": str(tmp_path)} | variables
        command = [sys.executable, "-c", SCRIPT]
        return Path(
            subprocess.check_output(command, env=environment, text=True).strip()
        )

    return ask


def test_programs_lie_in_the_users_cache_by_processor(kept_in, tmp_path):
    assert kept_in().parent == tmp_path / "taming_jax" / "programs"


def test_a_directory_that_was_chosen_stays(kept_in, tmp_path):
    chosen = tmp_path / "chosen"
    assert kept_in(JAX_COMPILATION_CACHE_DIR=str(chosen)) == chosen


@pytest.mark.parametrize(
    ("flags", "convolutions", "given"),
    [
        ("flags : fpu avx2 avx512f avx512bw", True, None),
        ("flags : fpu avx2 avx512f avx512bw", False, compilation.CPU_OPTIONS),
        ("flags : fpu avx2", True, compilation.CPU_OPTIONS),
        ("", True, compilation.CPU_OPTIONS),  # a system that does not say
    ],
)
def test_ynnpack_is_for_convolutions_in_wide_registers(
    monkeypatch, flags, convolutions, given
):
    asked = []
    monkeypatch.setattr(compilation, "instructions", lambda: flags)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "jit", lambda f, **more: asked.append(more) or f)
    compilation._compiler_options.cache_clear()
    compilation.jit(abs, convolutions=convolutions)
    compilation._compiler_options.cache_clear()
    assert asked[-1] == {"compiler_options": given}
