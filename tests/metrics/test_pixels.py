"""PSNR and SSIM against their definitions, worked out beside them."""

import numpy as np
import pytest

from taming_jax.metrics import pixels


def random_pictures(seed=0, shape=(2, 16, 20, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_psnr_of_a_constant_difference_is_that_of_the_definition():
    x = np.full((1, 4, 4, 3), 100, np.uint8)
    np.testing.assert_allclose(pixels.psnr(x, x + 5), 20 * np.log10(255 / 5))


def test_psnr_is_taken_picture_by_picture():
    x, y = random_pictures(0), random_pictures(1)
    errors = np.mean((x.astype(float) - y) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(pixels.psnr(x, y), 10 * np.log10(255**2 / errors))


def test_equal_pictures_have_the_psnr_that_rounding_alone_would_have():
    x = random_pictures()
    rounding = np.mean(np.square(np.linspace(-0.5, 0.5, 100_001)))  # uniform error
    limit = 10 * np.log10(255**2 / rounding)
    np.testing.assert_allclose(pixels.psnr(x, x), limit, rtol=1e-5)


def wang_2004(x, y):
    """SSIM of one channel: a Gaussian window at every place where it fits whole."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(a):
        windows = np.lib.stride_tricks.sliding_window_view(a, (11, 11))
        return np.einsum("hwij,ij->hw", windows, window)

    x, y = x.astype(float), y.astype(float)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mx * my + c1) * (2 * vxy + c2)
    return np.mean(top / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


def test_ssim_is_that_of_wang_2004():
    x = random_pictures(0)
    y = np.clip(x + np.random.default_rng(1).normal(0, 40, x.shape), 0, 255)
    y = y.astype(np.uint8)
    expected = [
        np.mean([wang_2004(a[..., c], b[..., c]) for c in range(3)])
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(pixels.ssim(x, y), expected, rtol=1e-9)


def test_ssim_of_equal_pictures_is_one():
    x = random_pictures()
    np.testing.assert_allclose(pixels.ssim(x, x), 1.0)


@pytest.mark.parametrize("measure", [pixels.psnr, pixels.ssim])
def test_only_uint8_is_compared(measure):
    x = random_pictures()
    with pytest.raises(ValueError, match=r"float32.*to_uint8"):
        measure(x.astype(np.float32), x)


@pytest.mark.parametrize("measure", [pixels.psnr, pixels.ssim])
def test_pictures_of_two_sizes_are_refused(measure):
    x = random_pictures()
    with pytest.raises(ValueError, match="same shape"):
        measure(x, x[:, :-1])


def test_ssim_needs_room_for_its_window():
    x = random_pictures(shape=(1, 10, 40, 3))
    with pytest.raises(ValueError, match=r"10 x 40.* at least 11 x 11"):
        pixels.ssim(x, x)
