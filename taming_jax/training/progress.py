"""The lines that a person watches: step, losses, images per second, time to go."""

import time

from taming_jax.training.stage import Stage


class Progress:
    """Prints progress of a stage that starts at step `start`."""

    def __init__(self, stage: Stage, start: int):
        self._stage = stage
        self._step, self._since = start, time.monotonic()

    def logged(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Prints one line for the metrics of `step`; returns the speed."""
        now = time.monotonic()
        seconds = (now - self._since) / max(1, step - self._step)
        self._step, self._since = step, now
        run = self._stage.run
        speed = run.batch_size / seconds
        shown = "  ".join(
            f"{name} {values[name]:.4g}" for name in self._stage.shown if name in values
        )
        print(
            f"{self._stage.name} {step}/{run.steps}  {shown}  {speed:.1f} images/s  "
            f"{_clock(seconds * (run.steps - step))} to go",
            flush=True,
        )
        return {"images_per_second": speed, "images_seen": step * run.batch_size}

    def validated(self, step: int, values: dict[str, float]) -> None:
        """Prints the validation's figures."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"{self._stage.name} {step}: held-out {shown}", flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    )
