"""SLURM: the batch script, with a stand-in for srun that runs the task here, once."""

import os
import re
import shlex
import signal
import time

import pytest

JOB = {"SLURM_JOB_ID": "42"}
REQUEUE = "scontrol requeue 42"


@pytest.fixture
def cluster(stage):
    stage.offers("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"')
    stage.offers("squeue", "echo RUNNING")
    stage.offers("scontrol")
    return stage


def run(cluster, program, *options, **variables):
    command = ["bash", "-c", program]
    return cluster.run("slurm.sh", *options, "--", *command, **(JOB | variables))


def test_the_job_asks_for_a_signal_in_time_and_to_be_requeued(stage):
    text = (stage.repository / "launch/slurm.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.M))
    needed = {"requeue": "", "signal": "TERM@120", "open-mode": "append"}
    assert needed.items() <= asked.items()


def test_tasks_end_in_their_own_time(cluster):
    """The first to have saved does not take the others along."""
    run(cluster, "true", SLURM_CPUS_PER_TASK="8")
    srun = shlex.split(cluster.calls[0])
    flags = ["--kill-on-bad-exit=0", "--wait=120", "--cpus-per-task=8"]
    assert srun[:4] == ["srun", *flags]


def test_what_has_finished_is_over(cluster):
    assert run(cluster, "exit 0").returncode == 0
    assert REQUEUE not in cluster.calls


@pytest.mark.parametrize("code", [1, 75, 143])
def test_what_crashed_stalled_or_ran_out_of_time_goes_back_into_the_queue(
    cluster, code
):
    assert run(cluster, f"exit {code}").returncode == code
    assert cluster.calls[-1] == REQUEUE


def test_a_refusal_of_any_process_is_final(cluster):
    """Another's higher code is all that srun tells."""
    cluster.offers("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"; exit 143')
    ended = run(cluster, "exit 2")
    assert (ended.returncode, REQUEUE in cluster.calls) == (2, False)
    assert not list(cluster.repository.glob("refused*"))


def test_scancel_is_final(cluster):
    cluster.offers("squeue", "echo CANCELLED")
    run(cluster, "exit 143")
    assert REQUEUE not in cluster.calls


def test_retries_have_an_end(cluster):
    run(cluster, "exit 1", "--retries", "3", SLURM_RESTART_COUNT="3")
    assert REQUEUE not in cluster.calls


def test_sigterm_waits_until_the_command_has_saved(cluster):
    """SLURM sends it to the whole step, to the shell around the command too."""
    saving = "trap 'sleep 0.3; touch saved; exit 143' TERM; touch begun; sleep 9 & wait"
    cluster.offers(
        "srun",
        'while [[ $1 == --* ]]; do shift; done; setsid "$@" & echo $! >step; wait $!',
    )
    process = cluster.begin("slurm.sh", "--", "bash", "-c", saving, **JOB)
    folder = cluster.repository
    while not (folder / "begun").exists():
        time.sleep(0.05)
    os.killpg(int((folder / "step").read_text()), signal.SIGTERM)
    assert process.wait(30) == 143
    assert (folder / "saved").exists()


@pytest.mark.parametrize(("tasks", "devices"), [("1", "0,1,2,3"), ("4", "jax chooses")])
def test_one_process_per_node_has_all_its_gpus(cluster, tasks, devices):
    """jax by itself gives a process the one GPU that has its number."""
    program = 'echo "${JAX_LOCAL_DEVICE_IDS:-jax chooses}" >devices'
    variables = {"SLURM_NTASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": "4"}
    run(cluster, program, **variables)
    assert (cluster.repository / "devices").read_text() == devices + "\n"


def test_dry_run_prints_everything_and_does_nothing(cluster):
    printed = cluster.run("slurm.sh", "--dry-run", "--", "python", "train.py").stderr
    places = [printed.find(name) for name in ("+ srun", "+ squeue", "+ scontrol")]
    assert -1 not in places
    assert (places, cluster.calls) == (sorted(places), [])


def test_outside_a_job_it_says_how_it_is_submitted(cluster):
    ended = cluster.run("slurm.sh", "--", "python", "train.py")
    assert (ended.returncode, "sbatch" in ended.stderr) == (2, True)
