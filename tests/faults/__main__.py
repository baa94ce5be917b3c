"""Many lives, two at a time, and their table: `make faults`.

    python tests/faults --lives 20 --seed 0

Of every five lives three are led on one device, one by two processes, and one loses
pictures.
"""

import argparse
import functools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from driver import STAGES, Event, life
from pairs import live_as_two, two_undisturbed
from pictures import lose_pictures
from tiny_command import undisturbed, write_card


def main() -> None:
    """Prints a row for every start of the command as soon as its life has ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lives", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| life | stage | damaged | began at | fault | at step | ended with |")
    print("|---|---|---|---|---|---|---|", flush=True)
    faults = 0
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        card = write_card(home)
        alone = undisturbed(card, home / "expected")
        expected = alone, two_undisturbed(card, home / "expected-2", tokenizer=alone)
        lead = functools.partial(_lead, seed=args.seed, card=card, expected=expected)
        with ThreadPoolExecutor(2) as threads:
            for number, (kind, events) in enumerate(
                threads.map(lead, range(args.lives))
            ):
                faults += sum(bool(e.damage) + bool(e.fault) for e in events)
                for event in events:
                    row = number, kind, *event
                    print("|", " | ".join(map(str, row)), "|", flush=True)
    print(f"\n{args.lives} lives and {faults} faults: nothing lost, nothing different")


def _lead(number: int, *, seed: int, card: Path, expected) -> tuple[str, list[Event]]:
    alone, as_two = expected
    match number % 5:
        case 3:
            events = live_as_two(number, seed=seed, card=card, expected=as_two)
            return "prior, two processes", events
        case 4:
            events = lose_pictures(number, seed=seed, home=alone.parent)
            return "vqgan, a folder", events
        case kind:
            events = life(number, seed=seed, card=card, expected=alone)
            return STAGES[kind], events


if __name__ == "__main__":
    main()
