"""Files that mean harm, read and watched; and a published prior, converted once."""

import resource
import sys
import time

import pytest
from golden import FOLDER

import taming_jax
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.checkpoint import open_checkpoint

SECONDS, MEGABYTES = 20.0, 700  # on busy machines; most need a hundredth of that


@pytest.fixture
def judged(tmp_path):
    """Reads tmp_path/file; nothing of it may run, take long or much."""

    def judge():
        memory, begin = _peak(), time.process_time()
        try:
            return open_checkpoint(tmp_path / "file")
        finally:
            assert time.process_time() - begin < SECONDS
            assert _peak() - memory < MEGABYTES
            assert not (tmp_path / "canary").exists()

    return judge


@pytest.fixture
def refused(judged):
    """Reads it, and returns its refusal: one line that can be printed."""

    def refuse() -> str:
        with pytest.raises(ValueError, match="file cannot be read") as caught:
            judged()
        assert str(caught.value).isprintable()
        return str(caught.value)

    return refuse


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@pytest.fixture(scope="session")
def depth(tmp_path_factory):
    """Golden 13: a prior of the original that is told depth, with both tokenizers."""
    output = tmp_path_factory.mktemp("net2net") / "out"
    convert_checkpoint(FOLDER / "13_net2net.ckpt", FOLDER / "13_net2net.yaml", output)
    return taming_jax.load_prior(output)
