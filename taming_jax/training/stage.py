"""What the loop knows of a stage: how to begin, to step, to judge and to show.

The loop is the same for a tokenizer and for a prior; all that differs is in here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from taming_jax.training.recipe import Run
from taming_jax.training.state import TrainState

Metrics = dict[str, Any]


class Stage(NamedTuple):
    """One stage, ready to run on a mesh.

    Attributes:
      name: its section in the recipe card and its directory in the run's.
      run: how long, how much at a time, how often.
      keep: the entries of an example that it reads.
      terms: names of what `nonfinite_term` in the step's metrics points at.
      shown: which metrics the progress line shows, in order.
      best: the metric that ranks checkpoints, and 'max' or 'min'.
      abstract: the state by shapes and shardings.
      init: () -> the first state, created sharded.
      step: (state, batch) -> (state, metrics); the state given is used up.
      evaluate: (state, batch) -> sums over the batch's examples where `mask` is set,
        and their `count`.
      conclude: the means of these over all examples -> figures.
      show: (state, batch) -> name -> uint8 picture [H, W, C], for people.
      preview: likewise, of the first batch that it will learn from; or None.
      check: raises ValueError for a batch, on the host, that it cannot learn from.
      facts: what it takes for granted of other stages, in JSON's types: a run goes on
        only while they stay the same.
    """

    name: str
    run: Run
    keep: tuple[str, ...]
    terms: tuple[str, ...]
    shown: tuple[str, ...]
    best: tuple[str, str]
    abstract: TrainState
    init: Callable[[], TrainState]
    step: Callable[[TrainState, Metrics], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState, Metrics], Metrics]
    show: Callable[[TrainState, Metrics], Metrics]
    preview: Callable[[TrainState, Metrics], Metrics] | None = None
    conclude: Callable[[Metrics], Metrics] = dict
    check: Callable[[Metrics], None] = lambda batch: None
    facts: Mapping[str, Any] = {}
