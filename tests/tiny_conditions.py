"""A prior of drawn scenes that is told something, for tokenizers of `tiny_run`.

config("depth") -> a recipe card;  train(W, "depth"): its command, in this process
"""

import tiny_run

from taming_jax.cli.train import main

DATA = {"name": "scenes", "train": 24, "val": 5, "image_size": 16}
RUN = {"log_every": 2, "image_every": 2, "eval_every": 2, "checkpoint_every": 2}
PRIOR = {**tiny_run.PRIOR, **RUN, "steps": 2}


def config(condition, mesh=None, data=DATA, **prior):
    return {
        **tiny_run.CONFIG,
        "data": data,
        "condition_vqgan": {"model": tiny_run.maps_model(11)},
        "prior": {**PRIOR, "condition": condition, **prior},
        "mesh": mesh or {"data": 1, "fsdp": 1, "tensor": 1},
    }


def write_card(path, condition, **prior):
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({config(condition, **prior)!r})\n"
    )
    return path


def train(directory, condition, **prior):
    """The tokenizers' runs are there: the prior's command, in this process."""
    card = write_card(directory / "card.py", condition, **prior)
    flags = [f"--config={card}", f"--workdir={directory}"]
    main(["train_prior.py", *flags], ["prior"])
    return directory
