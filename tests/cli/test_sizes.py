"""What --height and --width ask for, and pictures read at that size."""

import argparse
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
from golden import golden
from PIL import Image

from taming_jax import load_prior
from taming_jax.cli import sizes


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    run = tiny_run.write_run(tmp_path_factory.mktemp("run"))
    return load_prior(tiny_run.write_prior(run))


@pytest.mark.parametrize("size", [(8, 16), (20, 12), (16, 16)])
def test_a_picture_of_any_form_is_read_at_the_size_that_is_asked_for(tmp_path, size):
    """Its middle, as large as fits: of a ramp, all columns or those in the middle."""
    ramp = np.tile(np.arange(0, 240, 6, dtype=np.uint8), (40, 1))
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "ramp.png")
    found = sizes.read(tmp_path / "ramp.png", size)
    assert found.shape == (*size, 3)
    across = min(40, 40 * size[1] // size[0])
    ends = (40 - across) / 2 * 6, (40 + across) / 2 * 6
    # A pixel of the result is the mean of so many columns, here of their middle.
    half = (ends[1] - ends[0]) / size[1] / 2
    middle = found[size[0] // 2, :, 0].astype(float)
    expected = np.linspace(ends[0] + half, ends[1] - half, size[1]) - 3
    np.testing.assert_allclose(middle[1:-1], expected[1:-1], atol=1.0)


def test_classes_are_not_mixed_when_a_map_is_read(tmp_path):
    values = np.repeat([[1, 7]], 9, axis=1).repeat(18, axis=0).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "map.png")
    found = sizes.read(tmp_path / "map.png", (8, 8), "segmentation")
    assert set(np.unique(found)) == {1, 7}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((18, None), "--height 18: a code covers 4 x 4.* are 16 and 20"),
        ((16, 3), "--width 3: .* nearest that go are 4"),
        ((None, 0), "--width 0: "),
    ],
)
def test_a_size_that_is_no_whole_number_of_codes_is_refused(prior, asked, message):
    args = argparse.Namespace(height=asked[0], width=asked[1])
    with pytest.raises(ValueError, match=message):
        sizes.grid_of(args, prior)


CASE = golden("12_schedules_windows")
RESOLUTIONS = list(
    zip(CASE.config["resolution_strings"], CASE.outputs["resolutions"], strict=True)
)


@pytest.mark.parametrize(("asked", "originals"), RESOLUTIONS)
def test_sizes_are_the_originals_which_rounds_what_is_refused_here(asked, originals):
    """Its sides are at least 256; ours may be smaller."""
    codes, pixels = originals[:2].tolist(), originals[2:].tolist()
    published = SimpleNamespace(
        tokenizer=lambda: SimpleNamespace(stride=16), grid=(16, 16)
    )

    def grid_of(height, width):
        args = argparse.Namespace(height=height, width=width)
        return sizes.grid_of(args, published)

    assert grid_of(*pixels) == tuple(codes)
    height, width = map(int, asked.split(","))
    for name, side, rounded in zip(
        ("height", "width"), (height, width), pixels, strict=True
    ):
        if side % 16 and side >= 256:
            nearest = re.escape(f"--{name} {side}: ") + rf".*\b{rounded}\b"
            with pytest.raises(ValueError, match=nearest):
                grid_of(**{"height": None, "width": None, name: side})


def test_a_side_that_is_not_said_is_the_prior_s(prior):
    assert sizes.grid_of(argparse.Namespace(height=None, width=24), prior) == (4, 6)
