"""Pictures of every kind are written with Pillow here and must come back the same."""

import io

import numpy as np
import pytest
from PIL import Image

from taming_jax.data import read_image
from taming_jax.data.decoding import decode_square

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def photograph():
    from skimage import data

    return data.coffee()  # uint8 [400,600,3]


def encoded(picture, kind="PNG", **options):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read(tmp_path, content, name="picture"):
    (tmp_path / name).write_bytes(content)
    return read_image(tmp_path / name)


def assert_about(picture, colour):
    """JPEG and CMYK round by a few levels."""
    np.testing.assert_allclose(picture, np.broadcast_to(colour, picture.shape), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_pictures_come_back_exactly(tmp_path, kind, photograph):
    read_back = read(tmp_path, encoded(photograph, kind, lossless=True))
    np.testing.assert_array_equal(read_back, photograph)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    picture = Image.new("RGB", (24, 16), WHITE).convert(mode)
    assert_about(read(tmp_path, encoded(picture, kind)), WHITE)
    assert read_image(tmp_path / "picture").shape == (16, 24, 3)


def test_colours_survive_cmyk(tmp_path):
    picture = Image.new("RGB", (16, 16), RED).convert("CMYK")
    assert_about(read(tmp_path, encoded(picture, "JPEG", quality=95)), RED)


def test_transparent_parts_are_white_whatever_colour_they_hide(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :, :3] = BLUE
    pixels[:, 4:, 3] = 255
    read_back = read(tmp_path, encoded(pixels))
    assert_about(read_back[:, :4], WHITE)
    assert_about(read_back[:, 4:], BLUE)


def test_a_palette_may_have_a_transparent_colour(tmp_path):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([*RED, *GREEN])
    assert_about(read(tmp_path, encoded(picture, transparency=1)), WHITE)


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    levels = np.array([[0, 128, 129, 257, 32_768, 65_535]], np.uint16)
    read_back = read(tmp_path, encoded(levels))
    np.testing.assert_array_equal(read_back[0, :, 0], [0, 0, 1, 1, 128, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(tmp_path, orientation):
    """Stored turned or mirrored, with the note that says so; red is at the top left."""
    upright = np.full((32, 48, 3), 255, np.uint8)
    upright[:16, :16] = RED
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0, "exif": exif}
    content = encoded(np.ascontiguousarray(turned), "JPEG", **options)
    np.testing.assert_allclose(read(tmp_path, content), upright, atol=8)


def test_a_square_is_the_resized_picture_cropped(photograph):
    """Apart from the border, where the filter would reach across it."""
    resized = Image.fromarray(photograph).resize((192, 128), Image.Resampling.BICUBIC)
    expected = np.asarray(resized)[4:-4, 36:-36].astype(int)
    square = decode_square(encoded(photograph), 128)[4:-4, 4:-4]
    np.testing.assert_allclose(square, expected, atol=1)  # rounding of coefficients


def test_a_jpeg_decoded_small_is_the_picture_made_small(photograph):
    """At 40 dB nobody sees a difference; a shift by half a pixel gives 31 dB."""
    large = Image.fromarray(photograph).resize((1800, 1200))
    whole, small = (
        decode_square(encoded(large, kind, quality=98), 256).astype(float)
        for kind in ("PNG", "JPEG")
    )
    assert 10 * np.log10(255**2 / ((whole - small) ** 2).mean()) > 40


@pytest.mark.parametrize("shape", [(40, 64), (64, 40)])
def test_places_run_from_one_end_to_the_other(shape):
    ramp = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    picture = np.stack([ramp % 251, ramp % 241, ramp % 239], -1).astype(np.uint8)
    content = encoded(picture)
    first, last = (decode_square(content, 40, (p, p)) for p in (0, 0.999))
    np.testing.assert_array_equal(first, picture[:40, :40])
    np.testing.assert_array_equal(last, picture[-40:, -40:])
    centre = decode_square(content, 40)
    margins = [(length - 40) // 2 for length in shape]
    expected = picture[margins[0] :, margins[1] :][:40, :40]
    np.testing.assert_array_equal(centre, expected)


def test_a_zoom_gives_room_in_both_directions(photograph):
    """1.5 of 128 pixels: squares of the picture resized to a height of 192."""
    picture = np.asarray(Image.fromarray(photograph).resize((288, 192)))
    content = encoded(picture)
    places = [(x, y) for y in (0, 0.999) for x in (0, 0.999)]
    corners = [decode_square(content, 128, place, zoom=1.5) for place in places]
    top, bottom, left, right = (
        picture[:128],
        picture[-128:],
        np.s_[:128],
        np.s_[-128:],
    )
    expected = [top[:, left], top[:, right], bottom[:, left], bottom[:, right]]
    np.testing.assert_array_equal(corners, expected)


def test_a_jpeg_is_decoded_large_enough_for_the_zoom(photograph):
    """A half of it would be 256 pixels high, and its square only 171."""
    large = Image.fromarray(photograph).resize((768, 512))
    whole, small = (
        decode_square(encoded(large, kind, quality=98), 256, zoom=1.5).astype(float)
        for kind in ("PNG", "JPEG")
    )
    assert 10 * np.log10(255**2 / ((whole - small) ** 2).mean()) > 40


def test_mirroring_exchanges_left_and_right(photograph):
    content = encoded(photograph)
    straight, mirrored = (decode_square(content, 64, None, m) for m in (False, True))
    np.testing.assert_array_equal(mirrored, straight[:, ::-1])


def test_small_pictures_are_enlarged():
    assert_about(decode_square(encoded(Image.new("RGB", (3, 5), RED)), 16), RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_torn_picture_is_an_error(tmp_path, kind, photograph):
    content = encoded(photograph, kind)
    with pytest.raises(
        ValueError, match=r"torn.*cannot be read: .*; give a whole JPEG"
    ):
        read(tmp_path, content[: len(content) // 2], "torn")


@pytest.mark.parametrize("content", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0"])
def test_what_is_no_picture_is_an_error(tmp_path, content):
    with pytest.raises(ValueError, match="this is no JPEG, PNG or WebP picture"):
        read(tmp_path, content)


def test_a_missing_picture_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_image(tmp_path / "none.png")
