"""The averaged weights of a run, small enough to be passed on.

OUTPUT/vqgan, OUTPUT/condition_vqgan and OUTPUT/prior, as far as the run has them: what
load_vqgan, load_prior and every --model take, without optimizers and discriminator.
Weights are rounded to --dtype, except the quantizer's, on which the codes depend most.
The card in each config.json has this command, the version and, where `evaluate`
measured these very weights, its figures. OUTPUT must be new or empty.
"""

import argparse
import dataclasses
import json
import shlex

from taming_jax.files import new_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--workdir, --output, --dtype."""
    parser.add_argument(
        "--workdir", required=True, metavar="W", help="the directory of a run"
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--dtype",
        default="float16",
        help="of the weights, float16 or float32 (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Writes a directory per stage and says how large it is."""
    from taming_jax import stored

    models = _models(args.workdir)
    with new_directory(args.output) as output:
        for model in models:
            directory = output / model.stage
            stored.write(directory, model, dtype=args.dtype, card=_card(args, model))
            size = sum(path.stat().st_size for path in directory.iterdir())
            print(
                f"{args.output}/{model.stage}: step {model.step}, {size / 1e6:.2f} MB"
            )


def _models(workdir: str):
    """The stages of a run; the tokenizers of its prior may be from elsewhere."""
    from taming_jax import stored

    conditions, told_by = [], None
    if stored.is_there(workdir, "prior"):
        settings = stored.read_record(workdir, "prior")["config"]["prior"]
        told_by = settings.get("condition_tokenizer")
    if told_by or stored.is_there(workdir, "condition_vqgan"):
        conditions.append(stored.read(told_by or workdir, "condition_vqgan"))
    if not stored.is_there(workdir, "prior"):
        if conditions and not stored.is_there(workdir, "vqgan"):
            return conditions
        return [stored.read(workdir, "vqgan"), *conditions]
    prior = stored.read(workdir, "prior")
    settings = prior.config["prior"]
    tokenizer = stored.read(settings.get("tokenizer") or workdir, "vqgan")
    beside = {"tokenizer": None, "condition_tokenizer": None}
    config = {**prior.config, "prior": {**settings, **beside}}
    record = {**prior.record, "config": config}
    return [tokenizer, *conditions, dataclasses.replace(prior, record=record)]


def _card(args: argparse.Namespace, model) -> dict:
    """What people should know of the file."""
    from taming_jax import __version__

    flags = [
        f"--{name}={getattr(args, name)}" for name in ("workdir", "output", "dtype")
    ]
    card = {
        "command": shlex.join(["python", "-m", "taming_jax", "export", *flags]),
        "version": __version__,
    }
    evaluation = model.directory / "evaluation.json"
    if evaluation.exists():
        figures = json.loads(evaluation.read_text())
        if figures["step"] == model.step:
            card["figures"] = figures
    return card
