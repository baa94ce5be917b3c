"""A run whose directory is in a bucket: begun, continued, refused as on a disk."""

import functools
import json
import queue
import shutil
import sys

import jax
import numpy as np
import pytest
from bucket import stand_in
from etils import epath
from numpy.testing import assert_array_equal
from tiny_stage import CONFIG, stage

from taming_jax import processes, stored
from taming_jax.ranking import BEST_BY
from taming_jax.training import lease, workdir
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.run import run
from taming_jax.training.writer import Writer

# Where one read fails Orbax does not wait for the others, which then have no loop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:pytest.PytestUnraisableExceptionWarning"
)

STAGE_DIR = epath.Path("gs://bucket/begun/vqgan")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """One for all tests, with a run of two steps, interrupted after the first.

    TensorBoard would write through TensorFlow to Google itself.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        stand_in(tmp_path_factory.mktemp("cloud")) as bucket,
    ):
        patch.setitem(sys.modules, "clu", None)
        for steps in (1, 2):
            train("gs://bucket/run", steps)
        yield bucket


@pytest.fixture
def begun(bucket):
    """A copy of that run, to be spoiled: STAGE_DIR's side on this machine."""
    shutil.rmtree(bucket.local / "begun", ignore_errors=True)
    return shutil.copytree(bucket.local / "run", bucket.local / "begun") / "vqgan"


@pytest.fixture
def forbidden(bucket, monkeypatch):
    monkeypatch.setattr(bucket, "forbidden", True)


def train(directory, steps=2):
    """Steps that are saved, judged and shown each."""
    often = dict.fromkeys(("checkpoint_every", "eval_every", "image_every"), 1)
    section = CONFIG["vqgan"] | often | {"steps": steps}
    run(CONFIG | {"vqgan": section}, "vqgan", directory)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def logged(directory):
    """The steps in metrics.jsonl."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_two_parts_in_a_bucket_are_one_run_on_a_disk(bucket, tmp_path):
    train(tmp_path)
    here, there = (stored.read(path, "vqgan") for path in (tmp_path, "gs://bucket/run"))
    assert there.step == here.step == 2
    jax.tree.map(assert_array_equal, there.variables, here.variables)
    here, there = tmp_path / "vqgan", bucket.local / "run/vqgan"
    assert set(names(here)) - set(names(there)) == {".lock"}
    assert names(here / "images") == names(there / "images")
    assert logged(there) == [1, 2]


def test_a_damaged_checkpoint_is_set_aside_and_made_again(bucket, begun):
    before = stored.read(STAGE_DIR, "vqgan").variables
    files = [p for p in (begun / "checkpoints/2/state").rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    train(STAGE_DIR.parent)
    assert names(begun / "damaged") == ["2"]
    jax.tree.map(assert_array_equal, stored.read(STAGE_DIR, "vqgan").variables, before)


def test_a_connection_that_is_lost_is_no_damage(bucket, begun, monkeypatch):
    """And worth another try, which after a refusal there would not be."""
    monkeypatch.setattr(bucket, "cut_off", True)
    with (
        Checkpoints(STAGE_DIR / "checkpoints", keep=2, best=BEST_BY["vqgan"]) as kept,
        pytest.raises(RuntimeError, match=r"does not answer: PERMISSION_DENIED"),
        workdir.storage_explained(STAGE_DIR),
    ):
        kept.restore(stage().abstract)
    assert names(begun / "checkpoints") == ["1", "2"]


@pytest.mark.usefixtures("forbidden")
def test_a_run_that_may_not_write_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"--workdir is .*be reached") as refused:
        train("gs://bucket/other", 1)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("forbidden")
def test_a_model_that_may_not_be_read_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"the model is .*be reached") as refused:
        stored.read("gs://bucket/run", "vqgan")
    assert "\n" not in str(refused.value)


def test_without_the_package_for_buckets_its_name_is_said(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(ImportError, match="google-cloud-storage"):
        workdir.claimed(STAGE_DIR).__enter__()


def test_a_run_whose_directory_was_taken_over_ends(bucket, begun, monkeypatch):
    ended = queue.Queue()
    quick = functools.partial(lease.leased, silence=1.0)
    monkeypatch.setattr(workdir, "leased", quick)
    monkeypatch.setattr(processes, "end_now", lambda *how: ended.put(how))
    with workdir.claimed(STAGE_DIR):
        (begun / ".lock").write_text("{}")
        code, reason = ended.get(timeout=60)
    assert (code, reason.partition(": ")[0]) == (
        1,
        f"{STAGE_DIR} is no longer this run's",
    )


def test_what_was_logged_is_there_once_it_is_flushed(bucket):
    directory = bucket.path / "log"
    for start in (0, 2):
        with Writer(directory, start) as writer:
            for step in (start + 1, start + 2, start + 3):
                writer.scalars(step, {"loss": np.inf})
            writer.flush()
            assert logged(directory) == list(range(1, start + 4))
