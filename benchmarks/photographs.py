"""Crops of the photographs that scikit-image brings along, split by picture.

    pictures of the package -> halved in size -> random crops uint8 [N,size,size,3]

Six photographs to learn from and two to validate on: enough to see what a recipe does
to natural textures, too few to rank recipes by. Illustrative, in other words.
"""

from collections.abc import Sequence

import numpy as np

TRAIN = ("astronaut.png", "coffee.png", "motorcycle_left.png", "hubble_deep_field.jpg",
         "ihc.png", "grass.png")  # fmt: skip
VAL = ("chelsea.png", "rocket.jpg")


def crops(names: Sequence[str], count: int, size: int, seed: int) -> np.ndarray:
    """`count` crops uint8 [count,size,size,3], the pictures in turn, half mirrored."""
    photographs = [_photograph(name) for name in names]
    rng = np.random.default_rng(seed)
    cut = np.empty((count, size, size, 3), np.uint8)
    for row in range(count):
        picture = photographs[row % len(photographs)]
        top, left = (rng.integers(0, side - size + 1) for side in picture.shape[:2])
        crop = picture[top : top + size, left : left + size]
        cut[row] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return cut


def _photograph(name: str) -> np.ndarray:
    """uint8 [H,W,3] at half its size, each pixel the mean of four."""
    from skimage.data import data_dir
    from skimage.io import imread

    picture = imread(f"{data_dir}/{name}")
    if picture.ndim == 2:
        picture = np.stack([picture] * 3, axis=-1)
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    fours = picture[:height, :width, :3].reshape(height // 2, 2, width // 2, 2, 3)
    return np.round(fours.mean((1, 3))).astype(np.uint8)
