from types import SimpleNamespace

import pytest

from taming_jax.training import progress as module
from taming_jax.training.progress import Progress

STAGE = SimpleNamespace(
    name="vqgan", shown=("l1", "absent"), run=SimpleNamespace(steps=3_700, batch_size=8)
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told: `clock.now` in seconds."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    return clock


def test_a_line_has_step_losses_speed_and_time_to_go(clock, capsys):
    progress = Progress(STAGE, start=0)
    clock.now = 50.0
    progress.logged(100, {"l1": 0.123456})
    line = "vqgan 100/3700  l1 0.1235  16.0 images/s  30:00 to go\n"
    assert capsys.readouterr().out == line


def test_long_times_have_hours(clock, capsys):
    progress = Progress(STAGE, start=0)
    clock.now = 200.0
    progress.logged(100, {})
    assert "2:00:00 to go" in capsys.readouterr().out


def test_the_first_step_compiles_and_does_not_count(clock):
    progress = Progress(STAGE, start=10)
    clock.now = 1_000.0
    progress.read(11)
    clock.now += 4.0
    assert progress.logged(15, {})["images_per_second"] == 8.0


def test_validation_does_not_count(clock):
    progress = Progress(STAGE, start=0)
    clock.now = 1_000.0
    progress.validated(10, {"psnr": 20.0})
    clock.now += 5.0
    assert progress.logged(15, {})["images_per_second"] == 8.0


def test_validation_is_told(clock, capsys):
    Progress(STAGE, start=0).validated(10, {"psnr": 20.0, "l1": 0.1})
    assert capsys.readouterr().out == "vqgan 10: held-out psnr 20  l1 0.1\n"
