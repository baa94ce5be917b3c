"""One run at a time holds a directory of a bucket."""

import json
import queue
import time

import pytest
import tensorstore
from bucket import stand_in

from taming_jax.training.lease import leased

PLACE, SILENCE = "gs://bucket/run/vqgan", 2.0  # a renewal every eighth of it


@pytest.fixture
def bucket(tmp_path):
    with stand_in(tmp_path) as bucket:
        yield bucket


@pytest.fixture
def lock(bucket):
    """The file behind the object."""
    return bucket.local / "run/vqgan/.lock"


@pytest.fixture
def heard():
    """What `lost` was told."""
    return queue.Queue()


def lease(lost=pytest.fail, silence=SILENCE):
    return leased(PLACE, lost=lost, silence=silence)


def left_by_the_dead(lock):
    """As after kill -9; a second of silence is proof enough."""
    with lease(silence=1.0):
        left = lock.read_bytes()
    lock.write_bytes(left)
    return json.loads(left)


def test_a_living_run_is_not_disturbed(bucket, heard):
    with (
        lease(heard.put),
        pytest.raises(ValueError, match="in use by process"),
        lease(),
    ):
        pass
    assert heard.empty()


def test_what_was_let_go_is_free_at_once(bucket, lock):
    with lease(silence=60):
        pass
    begin = time.monotonic()
    with lease(silence=60):
        assert time.monotonic() - begin < 30
    assert not lock.exists()


def test_a_dead_run_leaves_nothing_in_the_way(bucket, lock):
    before = left_by_the_dead(lock)
    with lease():
        assert json.loads(lock.read_bytes())["nonce"] != before["nonce"]


def test_who_waits_is_told_for_whom(bucket, lock, capsys):
    process = left_by_the_dead(lock)["process"]
    with lease():
        assert f"sign of life: process {process} on" in capsys.readouterr().err


def test_of_two_who_found_it_free_one_wins(bucket):
    store = tensorstore.KvStore.open(f"{PLACE}/").result()
    free = store.read(".lock").result().stamp.generation
    with lease():
        assert store.write(".lock", "me", if_equal=free).result().generation == b""


def test_a_renewal_whose_answer_was_lost_counts(bucket, lock, heard):
    """It is there, of a generation that the holder has not heard of."""
    with lease(heard.put):
        lock.write_bytes(lock.read_bytes())
        unheard_of = lock.stat().st_mtime_ns
        while heard.empty() and lock.stat().st_mtime_ns == unheard_of:
            time.sleep(0.05)
    assert heard.empty()


def test_who_was_taken_over_hears_of_it(bucket, lock, heard):
    with lease(heard.put):
        lock.write_text('{"process": 7, "host": "other"}')
        assert heard.get(timeout=60) == "another run has taken it over"
    assert lock.exists()


def test_who_cannot_renew_it_gives_up_before_others_may_take_over(bucket, heard):
    with lease(heard.put):
        begin = time.monotonic()
        bucket.forbidden = True
        reason = heard.get(timeout=60)
        assert time.monotonic() - begin < SILENCE
    what, _, why = reason.partition(": ")
    assert what == "it could not be renewed"
    assert why.startswith(("PERMISSION_DENIED", "no answer"))  # of a busy machine


def test_a_bucket_without_permission_is_one_line(bucket):
    bucket.forbidden = True
    with pytest.raises(ValueError, match=r"^--workdir is .*be reached: P") as refused:
        lease().__enter__()
    assert "\n" not in str(refused.value)
