"""`tile=`: a tokenizer on pictures that do not fit into memory."""

import functools

import jax
import numpy as np
import pytest
import tiny_run
from etils import epath
from jax.sharding import AxisType
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.vqgan import VQGAN, blank
from taming_jax.pretrained import PretrainedVQGAN

# Pixels 4 x 4 to a code. Both halves see 6 codes to each side of their own, so that 8
# of 20 in a tile are kept, or more at the picture's edges.
LOCAL = tiny_run.MODEL["encoder"] | {"norm_groups": 0, "gain": 3**0.5}
LOCAL |= {"resample": "patch"}
TILE = 80
SIZES = [(100, 150), (130, 67), (30, 161)]


@functools.cache
def tokenizer(*, classes=False, norm_groups=0):
    half = LOCAL | {"norm_groups": norm_groups, "image_channels": 5 if classes else 3}
    model = tiny_run.MODEL | {"encoder": half, "decoder": half, "classes": classes}
    module = VQGAN(**model)
    init = jax.jit(functools.partial(module.init, train=False))
    params = init(jax.random.key(0), blank(module, module.stride))["params"]
    table = 0.3 * np.random.default_rng(0).normal(size=(tiny_run.CODEBOOK_SIZE, 4))
    params["quantizer"] = {"embedding": table.astype(np.float32)}  # so that codes vary
    return held(module, params)


def held(module, params, mesh=None):
    return PretrainedVQGAN(
        module,
        {"params": params},
        config={"vqgan": {"model": {"classes": module.classes}}},
        directory=epath.Path(),
        step=0,
        fingerprint="",
        mesh=mesh,
    )


def pictures(*size, batch=1):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (batch, *size, 3)).astype(np.float32)


def random_codes(*shape):
    return np.random.default_rng(0).integers(0, tiny_run.CODEBOOK_SIZE, shape, np.int32)


@pytest.mark.parametrize("size", SIZES)
def test_codes_by_tiles_are_those_of_the_whole(size):
    vqgan, images = tokenizer(), pictures(*size, batch=2)
    codes = vqgan.encode(images, tile=TILE)
    assert len(np.unique(codes)) > 8
    assert (type(codes), codes.dtype) == (np.ndarray, np.int32)
    assert_array_equal(codes, vqgan.encode(images))


@pytest.mark.parametrize("grid", [(25, 37), (7, 40)])
def test_pictures_by_tiles_are_those_of_the_whole(grid):
    vqgan, codes = tokenizer(), random_codes(2, *grid)
    images = vqgan.decode(codes, tile=TILE)
    assert (type(images), images.dtype) == (np.ndarray, np.float32)
    # Sums over channels are taken in another order at another size.
    assert_allclose(images, vqgan.decode(codes), atol=1e-5)


def test_class_maps_by_tiles_are_those_of_the_whole():
    vqgan = tokenizer(classes=True)
    maps = np.random.default_rng(0).integers(0, 5, (1, 100, 150), np.int32)
    assert_array_equal(vqgan.encode(maps, tile=TILE), vqgan.encode(maps))
    assert_array_equal(vqgan.reconstruct(maps, tile=TILE), vqgan.reconstruct(maps))


def test_the_margins_are_no_wider_than_they_must_be():
    """With one code less at each side something differs; or the tests show nothing."""
    from taming_jax.pretrained import tiled
    from taming_jax.tiling import Scale, bands

    vqgan, codes = tokenizer(), random_codes(1, 40, 40)
    margins = tiled.decoding_margins(vqgan.module, TILE)
    assert margins == (6, 6, 0)
    narrow = margins._replace(before=5, after=5)
    parts = bands(
        vqgan._run(vqgan._decoded), codes, tile=20, margins=narrow, scale=Scale(1, 4)
    )
    images = vqgan.module.decided(np.concatenate(list(parts), axis=1))
    assert np.abs(images - vqgan.decode(codes)).max() > 1e-4


def test_pictures_come_in_bands():
    vqgan, codes = tokenizer(), random_codes(1, 40, 20)
    bands = list(vqgan.decode_bands(codes, TILE))
    assert [band.shape[1] for band in bands] == [48, 28, 28, 56]
    assert_array_equal(np.concatenate(bands, axis=1), vqgan.decode(codes, TILE))


def test_where_a_model_sees_everything_tiles_fade():
    """Neighbouring pixels of two tiles differ by no more than the fading allows."""
    vqgan, codes = tokenizer(norm_groups=4), random_codes(1, 8, 48)
    codes[..., 24:] = 3  # statistics of their own
    difference = vqgan.decode(codes, tile=64) - np.asarray(vqgan.decode(codes))
    assert np.abs(difference).max() > 0.02
    steps = np.abs(np.diff(difference, axis=2)).max()
    halves = [vqgan.decode(codes[:, :, half]) for half in (slice(24), slice(24, 48))]
    hard = np.concatenate(halves, axis=2) - np.asarray(vqgan.decode(codes))
    assert steps < np.abs(np.diff(hard, axis=2)).max() / 2


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (0, r"tile=0 is less than 52 pixels: in whole codes, a code depends on 24 pix"),
        (48, r"tile=48 is less than 52 pixels: .* and 24 after its 4, .* larger tiles"),
        (78, r"tile=78 is no multiple of the 4 pixels .* the nearest are 76 and 80"),
    ],
)
def test_tiles_that_cannot_be_are_refused(tile, message):
    with pytest.raises(ValueError, match=message):
        tokenizer().encode(pictures(100, 100), tile=tile)


def test_squares_need_their_margins_too():
    message = r"less than 52 pixels: in whole codes, a square of pixels depends on 24"
    for refused in (
        lambda: tokenizer().decode(random_codes(1, 4, 4), tile=48),
        lambda: tokenizer().decode_bands(random_codes(1, 4, 4), tile=48),
        lambda: tokenizer().reconstruct(pictures(100, 100), tile=48),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_no_tile_at_a_time_is_refused():
    with pytest.raises(ValueError, match="together=0: tiles are run 1 at a time, or"):
        tokenizer().encode(pictures(100, 100), tile=TILE, together=0)


def test_what_sees_everything_needs_a_tile_to_fade():
    with pytest.raises(ValueError, match=r"less than 16 pixels: a 4th of a tile fades"):
        tokenizer(norm_groups=4).encode(pictures(100, 100), tile=12)


def test_images_are_checked_before_they_are_cut():
    with pytest.raises(ValueError, match=r"3 x 99 pixels; this model needs 4"):
        tokenizer().encode(pictures(3, 99), tile=TILE)
    with pytest.raises(ValueError, match=r"images reach 19.9[0-9]*; a tokenizer reads"):
        tokenizer().encode(20 * pictures(99, 99), tile=TILE)


@pytest.mark.devices(4)
def test_a_mesh_runs_as_many_tiles_as_it_has_parts():
    alone = tokenizer()
    mesh = jax.make_mesh(
        (2, 2, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    ran, vqgan = [], held(alone.module, alone.params, mesh)
    place = vqgan._place
    vqgan._place = lambda batch: ran.append(place(batch)) or ran[-1]
    codes = random_codes(1, 25, 37)
    images = vqgan.decode(codes, tile=TILE)
    assert {(len(batch), len(batch.sharding.device_set)) for batch in ran} == {(4, 4)}
    assert all(batch.addressable_shards[0].data.shape[0] == 1 for batch in ran)
    assert_allclose(images, alone.decode(codes), atol=1e-5)  # as without a mesh
