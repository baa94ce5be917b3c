"""Where a process stands: by flags, by the environment, or alone."""

import pytest

from taming_jax.processes.place import Place, find_place


def found(*given):
    return find_place(*(given or (None,) * 3), timeout=1)


def test_a_plain_machine_has_one_process():
    assert found() is None


def test_flags_say_all():
    assert found("node-0:4321", 2, 1) == Place("node-0:4321", 2, 1)


def test_one_process_is_alone_wherever_it_runs(slurm):
    assert found(None, 1, None) is None


@pytest.fixture
def slurm(monkeypatch):
    """The second of three tasks of a step on two nodes."""
    for name, value in {
        "JOB_ID": "4097", "STEP_NODELIST": "node[7-8]", "NTASKS": "3", "PROCID": "1",
        "LOCALID": "1", "STEP_NUM_NODES": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_slurm_says_all(slurm):
    assert found() == Place("node7:61441", 3, 1, device_ids=[1])


def test_flags_go_before_what_slurm_says(slurm):
    assert found("node-0:4321", None, None).coordinator == "node-0:4321"


def test_the_environment_may_say_which_gpus(slurm, monkeypatch):
    """jax reads that itself: one task per node uses all of a node's GPUs."""
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "0,1,2,3")
    assert found().device_ids is None


def test_a_cluster_that_cannot_be_read_is_refused(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "many")
    with pytest.raises(ValueError, match=r"jax cannot find out .*--processes 1 if"):
        found()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("node-0:4321", None, None), "--processes and --process missing"),
        ((None, 2, 0), "--coordinator missing, .*need --coordinator HOST:PORT"),
        (("node-0", 2, 0), "--coordinator node-0 is no HOST:PORT"),
        (("node-0:http", 2, 0), "--coordinator node-0:http is no HOST:PORT"),
        (("node-0:4321", 2, 2), "--process 2 of --processes 2: .*from 0 to 1"),
        (("node-0:4321", 2, -1), "--process -1 of --processes 2"),
    ],
)
def test_half_a_place_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        found(*given)
