"""What `train_vqgan.py` and `train_prior.py` share: flags -> config -> run.

    --config configs/NAME.py[:VARIANT]   the recipe card; it comes first
    --config.KEY=VALUE                   another value for one of its keys
    --workdir W                          where the run lives; runs/NAME if not given
    --stage S                            what to train, if not the card's main model
    --coordinator HOST:PORT --processes N --process I
                                         one of several processes, where the environment
                                         (TPU pod, SLURM, MPI, Kubernetes) does not say

The same command again continues the run.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from taming_jax import processes
from taming_jax.compilation import keep_programs


def main(argv: Sequence[str], stages: Sequence[str]) -> None:
    """Trains the first of `stages`, or the one that `--stage` names.

    What is wrong with the flags, the card, the data, the disk or the installation is
    said in one line, and the process ends with code 2.
    """
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return
    try:
        config, workdir, stage, place = parse(argv, stages)
        keep_programs()
        alike = {"configuration": config.to_dict(), "flags": [workdir, stage]}
        processes.start(*place, alike=alike)
        from taming_jax.training.run import run

        run(config, stage, workdir)
    except (ValueError, FloatingPointError, OSError, ImportError) as error:
        processes.end(2, str(error))


def parse(argv: Sequence[str], stages: Sequence[str]):
    """Command line -> (config, workdir, stage, the arguments of `processes.start`).

    Raises:
      ValueError: for flags that do not exist and cards that cannot be read.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "recipe card", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "run's directory", flag_values=values)
    flags.DEFINE_enum("stage", stages[0], stages, "what to train", flag_values=values)
    flags.DEFINE_string("coordinator", None, "process 0's", flag_values=values)
    flags.DEFINE_integer("processes", None, "how many", flag_values=values)
    flags.DEFINE_integer("process", None, "which one", flag_values=values)
    card = _card(argv)
    try:
        rest = values(list(argv))
    except flags.Error as error:  # whose last line says why the card cannot be read
        raise ValueError(f"{error}".strip().splitlines()[-1]) from None
    except (AttributeError, KeyError) as error:
        raise ValueError(f"no such key in {card}: {_reason(error)}") from None
    if len(rest) > 1:
        raise ValueError(f"{rest[1]!r} is no flag: --config.KEY=VALUE changes a value")
    workdir = values.workdir or _default_workdir(card)
    place = values.coordinator, values.processes, values.process
    return values.config, workdir, values.stage, place


def _card(argv: Sequence[str]) -> str:
    """The value of --config, checked to be there."""
    for i, argument in enumerate(argv):
        name, _, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            card = value or (argv[i + 1] if i + 1 < len(argv) else "")
            break
    else:
        card = ""
    path = Path(card.partition(":")[0])
    if not card or not path.is_file():
        there = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py")))
        given = f"{card} does not exist" if card else "--config is missing"
        raise ValueError(f"{given}: name a recipe card, for instance {there or path}")
    return card


def _default_workdir(card: str) -> str:
    path, _, variant = card.partition(":")
    name = Path(path).stem
    return f"runs/{name}-{variant}" if variant else f"runs/{name}"


def _reason(error: Exception) -> str:
    """What ml_collections says of a key, without its wrappings."""
    while isinstance(error.args[0], Exception):
        error = error.args[0]
    return error.args[0].replace("\n", ": ")
