"""Which program serves which step, and how often one is asked for."""

from types import SimpleNamespace

import pytest

from taming_jax.training.loss_weights import VQGANLoss
from taming_jax.training.phases import Phase, by_phase, phase_at

ALONE, JUDGED, FROZEN = Phase(False, False), Phase(True, False), Phase(True, True)
LOSS = VQGANLoss(disc_start=2, decoder_only_start=4).resolved(steps=6)


@pytest.mark.parametrize(
    ("step", "phase"), [(0, ALONE), (1, ALONE), (2, JUDGED), (3, JUDGED), (4, FROZEN)]
)
def test_a_phase_begins_at_its_start(step, phase):
    assert phase_at(LOSS, step) == phase


def test_the_originals_order_asks_the_discriminator_from_the_first_step_on():
    loss = VQGANLoss(disc_start=2, alternating=True).resolved(steps=6)
    assert phase_at(loss, 0) == JUDGED


def test_without_an_adversary_there_is_nothing_to_wait_for():
    loss = VQGANLoss(adversarial_weight=0.0).resolved(steps=6)
    assert {phase_at(loss, step) for step in range(6)} == {ALONE}


@pytest.mark.parametrize(("every", "turns"), [(1, [2, 3, 4, 5]), (3, [2, 5])])
def test_r1_has_its_turn_at_the_start_and_every_so_many_steps(every, turns):
    loss = VQGANLoss(disc_start=2, r1_weight=1.0, r1_every=every).resolved(steps=6)
    penalised = [step for step in range(6) if phase_at(loss, step).penalised]
    assert penalised == turns


class Number:
    """A step's number on a device, and whether the host has read it."""

    def __init__(self, value):
        self.value, self.was_read = value, False

    def __int__(self):
        self.was_read = True
        return self.value


def trained(start, count):
    """(phases asked for, phase of each step, each state's step) of a run of `count`."""
    asked, served, numbers = [], [], [Number(start)]

    def program(phase):
        asked.append(phase)

        def step(state, batch):
            served.append(phase)
            numbers.append(Number(state.step.value + 1))
            return SimpleNamespace(step=numbers[-1]), {}

        return step

    step, state = by_phase(LOSS, program), SimpleNamespace(step=numbers[0])
    for _ in range(count):
        state, _ = step(state, {})
    return asked, served, numbers


def test_every_step_is_served_by_its_phase():
    _, served, _ = trained(0, 6)
    assert served == [ALONE, ALONE, JUDGED, JUDGED, FROZEN, FROZEN]


def test_a_run_that_goes_on_begins_in_the_phase_where_it_stopped():
    assert trained(4, 2)[1] == [FROZEN, FROZEN]


def test_a_program_is_asked_for_once():
    assert trained(0, 6)[0] == [ALONE, JUDGED, FROZEN]


def test_only_the_first_step_is_read_from_the_device():
    read = [number.was_read for number in trained(0, 6)[2]]
    assert read == [True] + [False] * 6
