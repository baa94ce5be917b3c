"""A dozen pictures of noise and their codes, by a tokenizer without weights."""

import numpy as np
from PIL import Image

from taming_jax.data import open_codes, open_source
from taming_jax.data.codes_writer import describe, write_codes

SIZE, STRIDE = 16, 4
TOKENIZER = {
    "fingerprint": "f00d",
    "codebook_size": 256,
    "grid": (SIZE // STRIDE,) * 2,
    "image_size": SIZE,
}


def write_pictures(root):
    """Twelve pictures of noise in two classes, one of them torn, wider than high."""
    for number in range(12):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    torn = root / "a" / "4.png"
    torn.write_bytes(torn.read_bytes()[:100])
    return root


def open_pictures(folder, **settings):
    settings = {"crop": "center", "val": folder, "max_bad_share": 0.5} | settings
    data = {"name": "folder", "train": folder, "image_size": SIZE, **settings}
    return {split: open_source(data, split) for split in ("train", "val")}


def encode(pictures):
    """Codes of pictures: every fourth pixel's red."""
    return pictures[:, ::STRIDE, ::STRIDE, 0]


def write(directory, sources, views, **tokenizer):
    about = describe(sources, views, **TOKENIZER | tokenizer)
    directory.mkdir()
    write_codes(directory, sources, about, encode, batch_size=5, progress=unwatched)
    return directory


def unwatched(count):
    """Progress that nobody watches."""


def reopen(directory, sources, split="train", **changes):
    wanted = {
        "fingerprint": TOKENIZER["fingerprint"],
        "identity": sources[split].identity,
        "image_size": SIZE,
    }
    return open_codes(directory, split, **wanted | changes)
