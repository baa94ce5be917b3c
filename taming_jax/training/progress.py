"""The lines that a person watches: step, losses, images per second, time to go."""

import time

from taming_jax.training.stage import Stage


class Progress:
    """Prints how far a stage is, which starts at step `start`.

    Speed is measured between lines; the first step, which compiles, and the time that
    validation takes are left out of it.
    """

    def __init__(self, stage: Stage, start: int):
        self._stage, self._start = stage, start
        self._restart(start)

    def read(self, step: int) -> None:
        """Notes that the metrics of `step` have been read: so it is done."""
        if step == self._start + 1:
            self._restart(step)

    def logged(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Prints one line for the metrics of `step`; returns speed and images seen."""
        run = self._stage.run
        seconds = (time.monotonic() - self._since) / max(1, step - self._step)
        self._restart(step)
        named = ((name, values[name]) for name in self._stage.shown if name in values)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in named)
        speed = run.batch_size / seconds
        print(
            f"{self._stage.name} {step}/{run.steps}  {shown}  {speed:.1f} images/s  "
            f"{clock(seconds * (run.steps - step))} to go",
            flush=True,
        )
        return {"images_per_second": speed, "images_seen": step * run.batch_size}

    def validated(self, step: int, values: dict[str, float]) -> None:
        """Prints the validation's figures."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"{self._stage.name} {step}: held-out {shown}", flush=True)
        self._restart(step)

    def _restart(self, step: int) -> None:
        self._step, self._since = step, time.monotonic()


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    )
