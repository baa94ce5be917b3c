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


def add_processes(parser: argparse.ArgumentParser) -> None:
    """--coordinator, --processes, --process."""
    group = parser.add_argument_group(
        "several processes", "where the environment (TPU pod, SLURM, ...) does not say"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--processes", type=positive, metavar="N", help="how many")
    group.add_argument("--process", type=int, metavar="I", help="which one, from 0")


def start_processes(args: argparse.Namespace) -> None:
    """What these flags say, if anything: `processes.start`, with the same flags."""
    from taming_jax import processes

    same = {name: value for name, value in vars(args).items() if name != "run"}
    place = [same.pop(name) for name in ("coordinator", "processes", "process")]
    processes.start(*place, alike={"flags": same})


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
