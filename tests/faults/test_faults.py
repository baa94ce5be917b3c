"""Whatever happens to a training run, it ends as if nothing had happened.

Every fault three times; `make faults` has many more.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from driver import life, small_disk
from pairs import live_as_two, two_undisturbed
from pictures import lose_pictures
from tiny_command import undisturbed, write_card

LIVES = range(3)  # each has every fault of `driver` once
SEED = 1


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def card(home):
    return write_card(home)


@pytest.fixture(scope="module")
def expected(card, home):
    return undisturbed(card, home / "expected")


@pytest.fixture(scope="module")
def lives(card, home, expected):
    """What becomes of each life: two are led at a time."""
    try:
        with small_disk(home / "probe"):
            pass
    except PermissionError as error:
        pytest.skip(f"{error}: for this one has to be root")
    with ThreadPoolExecutor(2) as threads:
        yield [
            threads.submit(life, number, seed=SEED, card=card, expected=expected)
            for number in LIVES
        ]


@pytest.mark.parametrize("number", LIVES)
def test_nothing_is_lost_and_nothing_is_different(lives, number):
    events = lives[number].result()
    assert events[-1].ending.startswith("0 ")


@pytest.mark.slow  # tests/processes/test_deaths.py kills one
def test_one_of_two_processes_may_be_killed(card, home, expected):
    of_two = two_undisturbed(card, home / "expected-of-two", tokenizer=expected)
    events = live_as_two(0, seed=SEED, card=card, expected=of_two)
    assert events[-1].ending.startswith("0 ")


def test_pictures_may_disappear(home):
    events = lose_pictures(0, seed=SEED, home=home)
    assert events[-1].ending.startswith("0 ")
