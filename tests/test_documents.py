"""What README and docs tell people to type works, shrunk where it must be.

Commands and Python are taken from the documents in their order and run in one
directory, in this process; the scripts of launch/ only check and print what they would
do. `DIR` is a small folder of pictures in classes, `OUT` a new directory.
"""

import functools
import itertools
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import golden
from published import published_perceptual

from taming_jax import cli
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.names import PERCEPTUAL
from taming_jax.interop.perceptual import HEADS, VGG16
from taming_jax.metrics import judge
from taming_jax.pictures import write_png

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands that do not run here, by how they begin, and why.
LEFT_OUT = {
    "make demo": "takes minutes; tests/cli/test_demo.py runs its commands, shrunk",
    "make test": "is what runs this test",
    "make faults": "takes an hour; tests/faults does each of them three times",
    "python tests/faults": "is what `make faults` runs",
    "make fuzz": "takes a minute; tests/fuzz reads a thousand",
    "python tests/fuzz": "is what `make fuzz` runs",
    "python -m benchmarks": "takes minutes, and measures this machine",
    "python -m taming_jax sample --model scenes --condition docs/scene.png "
    "--height 1024": "takes minutes; a smaller picture for the same map is drawn, too",
    "make lint": "is what tests/test_setup.py runs",
    "pip install": "changes the environment; tests/test_setup.py sees what it brings",
    "pip list": "belongs to the line after it",
    "gcloud": "needs an account, and costs money",
    "docker": "needs a registry to push to",
    "kubectl": "needs a cluster",
    "tensorboard": "looks into a bucket",
    "ssh-keygen": "makes a key in the home directory",
    "ssh-add": "belongs to the line before it",
    "eval": "starts an agent that stays",
}

# Enough of each card to see that it works: small models, two steps. What a card leaves
# to a default is left to it here, too.
FEW = {"steps": 2, "batch_size": 4, "eval_examples": 4, "image_every": 2}
NARROW = {"width": 8, "layers": 1, "heads": 1, "dtype": "float32", "remat": False}
SHRUNK = {
    "vqgan": FEW | {"perceptual_weight": 0.0},
    "condition_vqgan": FEW,
    "vqgan.model": {"dtype": "float32"},
    "vqgan.discriminator": {"channels": 4, "layers": 1},
    "prior": FEW,
    "prior.model": NARROW,
}
# The data, and both halves of the autoencoder, of a card.
SHALLOW = {"channels": 32, "multipliers": "(1,2,2)", "blocks": 0, "patch_size": 2}
OF_CARD = {
    "shapes": ({"train": 64, "val": 16}, {"channels": 8}),
    "custom": ({"image_size": 64}, SHALLOW),
    "imagenet": ({"image_size": 32}, SHALLOW),
    "scenes": ({"train": 64, "val": 16}, {}),
    "finetune": ({"image_size": 16}, {}),
}


def blocks(language):
    """(document, text) of every block of code in that language."""
    for path in DOCUMENTS:
        for text in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.S):
            yield path.name, text


def commands():
    """Every command line, without comments, continued lines joined."""
    for _, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            if command:
                yield shlex.join(command)


def is_left_out(command):
    return any(command.startswith(beginning) for beginning in LEFT_OUT)


def is_slow(command):
    """Other cards than that of shapes take a minute each to compile."""
    card = "--config configs/" in command or "--workdir runs/" in command
    return command.startswith("python") and card and "shapes" not in command


# What slow commands read, and what makes it: a quick one, which may not have been run.
MADE = {
    "converted": "python -m taming_jax convert model vqgan.ckpt vqgan.yaml converted",
    "drawn": "python -m taming_jax sample --model shapes --classes 3,7 --count 4 "
    "--output drawn",
}

# Each once, though two documents may name it: what it makes is there then.
RUN = [c for c in dict.fromkeys(commands()) if not is_left_out(c)]
MARKED = [
    pytest.param(command, marks=pytest.mark.slow if is_slow(command) else ())
    for command in RUN
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The cards and the documents, and DIR: three classes, eight pictures of each.

    And small stand-ins for what others publish, by the names that they have there.
    """
    place = tmp_path_factory.mktemp("documents")
    for name in ("configs", "docs", "launch", "train_vqgan.py", "train_prior.py"):
        (place / name).symlink_to(ROOT / name)
    draw = np.random.default_rng(0).integers
    for part, kind in itertools.product(("train", "val"), range(3)):
        for i in range(8):
            picture = draw(0, 256, (20, 24, 3)).astype(np.uint8)
            write_png(place / f"DIR/{part}/n0000000{kind}/{i}.png", picture)
    for kind in ("ckpt", "yaml"):
        (place / f"vqgan.{kind}").symlink_to(ROOT / f"tests/golden/13_vqmodel.{kind}")
    vgg, heads = published_perceptual(golden("07_lpips").variables(PERCEPTUAL))
    write_torch(place / VGG16.name, vgg)
    write_torch(place / HEADS.name, heads)
    return place


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    recipe = judge.Recipe(size=16, widths=(8,), features=4, steps=3, batch_size=8)
    quick = functools.partial(judge.judge_of, recipe=recipe)
    monkeypatch.setattr(judge, "judge_of", quick)


@pytest.mark.parametrize("command", MARKED)
def test_commands_of_the_documents_work(command, place, monkeypatch):
    monkeypatch.chdir(place)
    for made, earlier in MADE.items():
        if made in command and command != earlier and not Path(made).exists():
            execute(shlex.split(earlier))
    execute(shlex.split(command.replace("OUT", f"out/{RUN.index(command)}")))


def test_python_of_the_documents_works(place, monkeypatch):
    """After the commands, whose runs it loads; one namespace, as in a notebook."""
    monkeypatch.chdir(place)
    namespace = {}
    for document, text in blocks("python"):
        exec(compile(text, document, "exec"), namespace)


def test_every_reason_to_leave_a_command_out_is_needed():
    listed = list(commands())
    unused = [b for b in LEFT_OUT if not any(c.startswith(b) for c in listed)]
    assert unused == []


def execute(command):
    if any(word.startswith("launch/") for word in command):
        launch(command)
        return
    assert command[0] == "python"
    if command[1:3] == ["-m", "taming_jax"]:
        assert cli.main(command[3:]) == 0
        return
    path, _, variant = command[command.index("--config") + 1].partition(":")
    card = runpy.run_path(path)["get_config"](*([variant] if variant else []))
    data, half = OF_CARD[Path(path).stem]
    halves = {f"vqgan.model.{name}": half for name in ("encoder", "decoder")}
    shrunk = [
        f"--config.{section}.{key}={value}"
        for section, settings in ({"data": data} | SHRUNK | halves).items()
        for key, value in settings.items()
        if key in section_of(card, section)
    ]
    argv, sys.argv = sys.argv, [*command[1:], *shrunk]
    try:
        runpy.run_path(command[1], run_name="__main__")
    finally:
        sys.argv = argv


def section_of(card, name):
    """A section, or one of a section; {} where the card has none."""
    for part in name.split("."):
        card = card.get(part, {})
    return card


def launch(command):
    """Has a script check its options and print what it would run."""
    if command[0] == "sbatch":  # runs it on the first node, without its own options
        command = ["bash", *itertools.dropwhile(lambda w: "launch/" not in w, command)]
    end = command.index("--") if "--" in command else len(command)
    dry = [*command[:end], "--dry-run", *command[end:]]
    printed = subprocess.run(dry, capture_output=True, text=True, check=False).stderr
    assert printed.startswith("+ "), printed
