"""What every test runs on: one CPU device, and compilations remembered between runs.

Tests marked `devices(n)` run in a process that has n simulated devices, those of a file
together, so that they share what they compile; all others see one, which keeps them
quick.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

# Before jax is imported, and inherited by the commands that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "taming_jax" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A program that runs for a moment need not be optimised: it compiles twice as fast.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_collection_modifyitems(items):
    """A test that will run elsewhere needs none of its fixtures here."""
    for item in items:
        if _devices_elsewhere(item):
            item.fixturenames.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs a test marked `devices(n)` where there are n; fails with what it printed."""
    count = _devices_elsewhere(pyfuncitem)
    if not count:
        return None  # pytest's own way
    together = tuple(
        item.nodeid
        for item in pyfuncitem.session.items
        if item.path == pyfuncitem.path and _devices_elsewhere(item) == count
    )
    finished = _run_elsewhere(together, count, pyfuncitem.config.rootpath)
    if f"PASSED {pyfuncitem.nodeid}" not in finished.stdout.splitlines():
        pytest.fail(finished.stdout + finished.stderr, pytrace=False)
    return True


@functools.cache
def _run_elsewhere(tests: tuple[str, ...], count: int, root: Path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rp", *tests],
        cwd=root,
        env=os.environ | {"XLA_FLAGS": flags, "TAMING_JAX_TEST_DEVICES": str(count)},
        capture_output=True,
        text=True,
        check=False,
    )


def _devices_elsewhere(item) -> int:
    """The number of devices that the test asks for; 0 if it may run here."""
    marker = item.get_closest_marker("devices")
    if marker is None or "TAMING_JAX_TEST_DEVICES" in os.environ:
        return 0
    return marker.args[0]
