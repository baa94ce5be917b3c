"""The phases of the first stage's training, each with a program of its own.

    autoencoder alone -> and the adversary -> the decoder's side alone, codes frozen

What a phase does not need is not in its program: a discriminator that does not count
yet, or the gradients of an encoder that has learned, are a fifth of a small step each.
The host chooses by the number of the step. A condition inside of one program would not
do: on CPUs XLA runs convolutions within `lax.cond` ten times slower.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from taming_jax.training.loss_weights import VQGANLoss
from taming_jax.training.state import TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, dict]]


class Phase(NamedTuple):
    """What the steps of a part of the run compute.

    judged: the discriminator is asked, and learns.
    frozen: the codes stay as they are; only the decoder's side learns.
    penalised: the discriminator learns by R1, too, at every `r1_every`th step.
    """

    judged: bool
    frozen: bool
    penalised: bool = False


def phase_at(loss: VQGANLoss, step: int) -> Phase:
    """The phase of a step; the original's order asks the discriminator in every one."""
    begun = loss.alternating or step >= loss.disc_start
    judged = loss.adversarial_weight > 0 and begun
    turn = (step - loss.disc_start) % loss.r1_every == 0
    return Phase(
        judged=judged,
        frozen=step >= loss.decoder_only_start,
        penalised=judged and loss.r1_weight > 0 and turn,
    )


def by_phase(loss: VQGANLoss, program: Callable[[Phase], Step]) -> Step:
    """One `step(state, batch)` of the programs for the phases, each asked for once.

    Which step a state is at is counted here: to read it from the device would be to
    wait for it. It is read from a state that is not the last one's successor.
    """
    program = functools.cache(program)
    number, counted = 0, None  # of the state that was returned last: its step, twice

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
        nonlocal number, counted
        if state.step is not counted:
            number = int(state.step)
        state, metrics = program(phase_at(loss, number))(state, batch)
        number, counted = number + 1, state.step
        return state, metrics

    return step
