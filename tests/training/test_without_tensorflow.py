"""What needs no data must not need TensorFlow, nor what only comes along with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny_stage import CONFIG

ROOT = Path(__file__).parents[2]

# A stage is built, stepped, saved, logged and loaded again where nothing of
# TensorFlow's can be imported. The batches are made by hand.
PROGRAM = """
import json, sys
from pathlib import Path

sys.modules.update(dict.fromkeys(["tensorflow", "tensorflow_datasets", "tensorboard"]))

import jax
import numpy as np
from tiny_stage import stage

import taming_jax
from taming_jax.training.loop import train
from taming_jax.training.mesh import create_mesh
from taming_jax.training.recipe import Mesh

images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def batches(start=0):
    while True:
        yield {"image": images, "index": np.arange(4)}


def held_out():
    yield {"image": images, "index": np.arange(4), "mask": np.ones(4, bool)}


directory = Path(sys.argv[1])
train(stage(), directory / "vqgan", create_mesh(Mesh()), batches, held_out)
record = json.loads(sys.argv[2])
(directory / "vqgan" / "config.json").write_text(json.dumps({"config": record}))
vqgan = taming_jax.load_vqgan(directory)
codes = vqgan.encode(images / np.float32(127.5) - 1)
print(json.dumps({
    "files": sorted(path.name for path in (directory / "vqgan").iterdir()),
    "step": vqgan.step,
    "codes": codes.shape,
    "tensorflow": bool(sys.modules["tensorflow"]),
}))
"""


def test_a_stage_is_trained_and_loaded_without_tensorflow(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, json.dumps(CONFIG)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(finished.stdout.splitlines()[-1]) == {
        "files": ["checkpoints", "config.json", "images", "metrics.jsonl"],
        "step": 6,
        "codes": [4, 4, 4],
        "tensorflow": False,
    }
