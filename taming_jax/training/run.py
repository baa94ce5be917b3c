"""A training command, from the recipe card to the last step.

    config -> mesh, stage and its data -> checks -> loop

Everything that can be wrong is found here, before the first step; nothing is written
into the run's directory until all of it is right.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
from etils import epath

from taming_jax import data, processes
from taming_jax.conditions.kinds import Data
from taming_jax.conditions.on_disk import beside, described
from taming_jax.conditions.table import coded, requested
from taming_jax.training import loop, recipe, workdir
from taming_jax.training.initial import check_start
from taming_jax.training.mesh import batch_sharding, create_mesh, describe_devices
from taming_jax.training.prior import make_prior_stage
from taming_jax.training.sections import plain
from taming_jax.training.stage import Stage
from taming_jax.training.tokenizer import load_tokenizer
from taming_jax.training.vqgan import make_vqgan_stage

SPLITS = ("train", "val")


def run(config: Mapping[str, Any], stage_name: str, directory: str | PurePath) -> None:
    """Trains a stage of a recipe card in `directory`, or goes on with it.

    Raises:
      ValueError: for everything that would go wrong later.
      FloatingPointError, SystemExit: as `loop.train`.
      OSError, RuntimeError: as `workdir.storage_explained`.
    """
    config, directory = plain(config), epath.Path(directory)
    for section in ("seed", "data", stage_name, "mesh"):
        if section not in config:
            raise ValueError(f"the recipe card has no config.{section}: it needs one")
    mesh = create_mesh(recipe.mesh_from_config(config["mesh"]))
    print(describe_devices(mesh), flush=True)
    stage, sources = STAGES[stage_name](config, mesh, directory)
    share, shares = data_share(mesh, stage.run.batch_size)
    batching = {
        "batch_size": stage.run.batch_size,
        "keep": stage.keep,
        "process_index": share,
        "process_count": shares,
    }

    def train_batches(start_step):
        batches = data.train_batches(
            sources["train"], seed=config["seed"], start_step=start_step, **batching
        )
        return _checked(batches, stage)

    def eval_batches():
        count = stage.run.eval_examples
        batches = data.eval_batches(sources["val"], count=count, **batching)
        return _checked(batches, stage)

    next(train_batches(0))  # too few pictures, or none that can be read: now, not later
    stage_dir = directory / stage.name
    identity = {split: source.identity for split, source in sources.items()}
    processes.same_everywhere("data", identity)
    processes.same_everywhere("tokenizer", dict(stage.facts))
    workdir.check_room(stage_dir, _bytes(stage), stage.run.keep_checkpoints)
    beginning = config[stage_name].get("init_from")
    if beginning and not (stage_dir / "config.json").exists():
        settings = config[stage_name].get("model")
        if stage_name == "prior":
            known = recipe.PriorRecipe.from_config(config["prior"])
            settings = {"recipe": known, "facts": stage.facts}
        check_start(beginning, stage.abstract.params, stage.name, settings)
    with contextlib.ExitStack() as held:
        held.enter_context(workdir.storage_explained(stage_dir))
        if processes.is_first():
            held.enter_context(workdir.claimed(stage_dir))
            changes = workdir.check_and_record(
                stage_dir, stage.name, config, identity, stage.facts
            )
            for change in changes:
                print(f"changed since this run began: {change}", flush=True)
        processes.barrier("the claim of the run's directory")
        print(_summary(stage, sources, stage_dir), flush=True)
        loop.train(stage, stage_dir, mesh, train_batches, eval_batches)


def data_share(mesh: jax.sharding.Mesh, batch_size: int) -> tuple[int, int]:
    """(k, P): this process reads the k-th of P equal shares of each batch.

    Processes whose devices hold the same rows, since `tensor` lies across them, read
    the same share.
    """
    rows = {}  # of each process, where the parts begin that its devices hold
    places = batch_sharding(mesh).devices_indices_map((batch_size,))
    for device, (part,) in places.items():
        rows.setdefault(device.process_index, set()).add(part.start or 0)
    shares = sorted({tuple(sorted(starts)) for starts in rows.values()})
    return shares.index(tuple(sorted(rows[jax.process_index()]))), len(shares)


def _vqgan(
    config: Mapping, mesh: jax.sharding.Mesh, directory: epath.Path, section="vqgan"
):
    del directory  # a tokenizer needs no other stage
    sources = _pictures(config)
    names = sources["train"].region_names
    return make_vqgan_stage(config, mesh, section, names), sources


def _prior(config: Mapping, mesh: jax.sharding.Mesh, directory: epath.Path):
    """Learns from the codes that `tokenize` left there, or encodes on the way."""
    tokenizer = load_tokenizer(config["prior"].get("tokenizer") or directory, mesh)
    sources = _pictures(config)
    condition = _condition_tokenizer(config["prior"], mesh, directory)
    train, size = sources["train"], config["data"]["image_size"]
    about = data_of(train, size, tokenizer.module.stride)
    has_codes = (directory / "codes").is_dir()
    if has_codes:
        told = beside(config["prior"].get("condition", "label"), about)
        sources = {
            split: data.open_codes(
                directory / "codes",
                split,
                fingerprint=tokenizer.fingerprint,
                identity=pictures.identity,
                image_size=size,
                condition=_coded_condition(config, condition),
                told=described(told, train.example_spec),
            )
            for split, pictures in sources.items()
        }
    stage = make_prior_stage(
        config,
        mesh,
        tokenizer,
        train.class_names,
        from_codes=has_codes,
        condition=condition,
        object_names=about.object_names,
        shapes=about.shapes,
        crops=about.crops,
    )
    return stage, sources


def data_of(source: data.Source, image_size: int, stride: int) -> Data:
    """What conditions are made for, but for the tokenizer of maps."""
    return Data(
        image_size=image_size,
        stride=stride,
        class_names=source.class_names,
        object_names=source.region_names[1:],
        shapes={name: field.shape for name, field in source.example_spec.items()},
        crops=bool({"across", "down"} & set(source.chances)),
    )


def _condition_tokenizer(section: Mapping, mesh: jax.sharding.Mesh, directory):
    """Of a condition that is a map; None where there is none."""
    names = [name for name, _ in requested(section.get("condition", "label"))]
    if not coded(names):
        return None
    place = section.get("condition_tokenizer") or directory
    return load_tokenizer(place, mesh, stage="condition_vqgan")


def _coded_condition(config: Mapping, tokenizer) -> dict | None:
    """What codes on disk have to be of, beside the pictures'."""
    if tokenizer is None:
        return None
    told = dict(requested(config["prior"]["condition"]))
    (kind,) = coded(told)
    side = told[kind].get("side") or config["data"]["image_size"]
    return {"kind": kind, "side": side, "fingerprint": tokenizer.fingerprint}


def _pictures(config: Mapping) -> dict[str, data.Source]:
    return {split: data.open_source(config["data"], split) for split in SPLITS}


STAGES = {
    "vqgan": _vqgan,
    "condition_vqgan": functools.partial(_vqgan, section="condition_vqgan"),
    "prior": _prior,
}


def _checked(batches: Iterator[dict], stage: Stage) -> Iterator[dict]:
    for batch in batches:
        stage.check(batch)
        yield batch


def _bytes(stage: Stage) -> int:
    leaves = jax.tree.leaves(stage.abstract)
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _summary(stage: Stage, sources: Mapping, stage_dir: epath.Path) -> str:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(stage.abstract.params))
    return (
        f"{stage.name}: {parameters:,} parameters, {len(sources['train']):,} pictures "
        f"({len(sources['val']):,} held out), {stage.run.steps:,} steps of "
        f"{stage.run.batch_size}, in {stage_dir}"
    )
