"""How near two batches of pictures are, pixel by pixel: PSNR and SSIM.

Both take uint8 [B, H, W, C], the pictures as a file would hold them, so that no
figure profits from values that a file cannot keep (`units.to_uint8` clips and
rounds). Both give float64 [B], one figure a picture; the mean over pictures is
what papers report.
"""

import numpy as np

# dB. Rounding to uint8 alone has a mean square of 1/12: what is nearer cannot be told
# apart, and one blank picture that comes back exact must not make a mean infinite.
PSNR_LIMIT = 10 * np.log10(12 * 255**2)

SSIM_WINDOW = 11  # pixels; Wang et al.'s Gaussian of sigma 1.5, cut at 3.5 sigma


def psnr(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, at most `PSNR_LIMIT`."""
    from skimage.metrics import peak_signal_noise_ratio

    _check(originals, reconstructions)
    with np.errstate(divide="ignore"):  # equal pictures: 10 log10(255^2 / 0) = inf
        ratios = [
            peak_signal_noise_ratio(x, y, data_range=255)
            for x, y in zip(originals, reconstructions, strict=True)
        ]
    return np.minimum(ratios, PSNR_LIMIT)


def ssim(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Structural similarity in [-1, 1], mean over places and channels.

    With the window and constants of Wang et al. (2004), which scikit-image does not
    use unless told. Pictures smaller than the window raise ValueError.
    """
    from skimage.metrics import structural_similarity

    _check(originals, reconstructions)
    if min(originals.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM of {originals.shape[1]} x {originals.shape[2]} pictures; its window "
            f"needs at least {SSIM_WINDOW} x {SSIM_WINDOW}; use larger pictures"
        )
    return np.array(
        [
            structural_similarity(
                x,
                y,
                data_range=255,
                channel_axis=-1,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for x, y in zip(originals, reconstructions, strict=True)
        ]
    )


def _check(originals, reconstructions):
    for pictures in (originals, reconstructions):
        if pictures.dtype != np.uint8 or pictures.ndim != 4:
            raise ValueError(
                f"given {pictures.dtype} of shape {pictures.shape}; pictures are "
                "compared as uint8 [B, H, W, C]; convert them with units.to_uint8"
            )
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"originals {originals.shape} beside reconstructions "
            f"{reconstructions.shape}; both need the same shape; crop the originals to "
            "what the tokenizer gives back"
        )
