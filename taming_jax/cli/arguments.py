"""Flags that all verbs share."""

import argparse


def add_model(parser: argparse.ArgumentParser) -> None:
    """--workdir or --model, --seed, --batch_size."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", metavar="W", help="the directory of a run")
    model.add_argument(
        "--model", metavar="DIR|NAME", help="an exported model, or one of the package"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of all that is drawn at random",
    )
    add_batch_size(parser)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """--batch_size."""
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=16,
        metavar="B",
        help="pictures at a time (default: %(default)s)",
    )


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def model_path(args: argparse.Namespace) -> str:
    """What the two flags that name a model say."""
    return args.workdir or args.model
