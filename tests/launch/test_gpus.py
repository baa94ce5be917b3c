"""One machine with many GPUs: what is run, what is run again, and who gets signals."""

import signal
import time

import pytest


def run(stage, program, *options, **variables):
    return stage.run("gpus.sh", *options, "--", "bash", "-c", program, **variables)


@pytest.mark.parametrize("code", [0, 2, 130, 143])
def test_what_finished_refused_or_was_stopped_is_not_started_again(stage, code):
    ended = run(stage, f"echo x >>starts; exit {code}")
    starts = (stage.repository / "starts").read_text()
    assert (ended.returncode, starts) == (code, "x\n")


@pytest.mark.parametrize("code", [1, 75])
def test_what_crashed_or_stalled_is_started_again(stage, code):
    ended = run(stage, f"echo x >>starts; exit {code}", "--retries", "2")
    starts = (stage.repository / "starts").read_text()
    assert (ended.returncode, starts) == (code, "x\n" * 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command_which_saves(stage, number):
    program = f"""
      trap 'sleep 0.2; touch saved; exit {128 + number}' TERM INT
      touch begun; while true; do sleep 0.05; done"""
    process = stage.begin("gpus.sh", "--", "bash", "-c", program)
    while not (stage.repository / "begun").exists():
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert (stage.repository / "saved").exists()


def test_flags_of_the_user_come_last(stage):
    run(stage, 'echo "$XLA_FLAGS" >flags', XLA_FLAGS="--xla_mine=1")
    flags = (stage.repository / "flags").read_text().split()
    assert flags == ["--xla_gpu_enable_latency_hiding_scheduler=true", "--xla_mine=1"]


def test_dry_run_prints_the_command_and_does_nothing(stage):
    ended = run(stage, "touch begun", "--dry-run", XLA_FLAGS="")
    flags = "XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true"
    assert ended.stderr == f"+ {flags}  bash -c touch\\ begun\n"
    assert not (stage.repository / "begun").exists()
