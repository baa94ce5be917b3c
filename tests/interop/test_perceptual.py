import json

import jax
import numpy as np
import pytest
from bucket import stand_in
from golden import golden
from numpy.testing import assert_array_equal

from taming_jax.interop.names import PERCEPTUAL
from taming_jax.interop.perceptual import (
    default_path,
    load_perceptual,
    save_perceptual,
)


@pytest.fixture
def params():
    return golden("07_lpips").variables(PERCEPTUAL)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache directory of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_was_saved_is_loaded(params, tmp_path):
    save_perceptual(tmp_path / "weights.npz", params)
    loaded = load_perceptual(tmp_path / "weights.npz")
    jax.tree.map(assert_array_equal, loaded, params)


def test_a_bucket_may_hold_them(params, tmp_path):
    with stand_in(tmp_path) as bucket:
        save_perceptual(bucket.path / "weights.npz", params)
        loaded = load_perceptual("gs://bucket/weights.npz")
    jax.tree.map(assert_array_equal, loaded, params)


def test_without_a_path_the_cache_is_read(params):
    save_perceptual(default_path(), params)
    assert_array_equal(load_perceptual()["heads"]["4"], params["heads"]["4"])


def test_without_a_cache_variable_the_home_directory_is_meant(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".cache" / "taming_jax" / "perceptual.npz"


def test_the_file_says_where_its_numbers_come_from(params, tmp_path):
    save_perceptual(tmp_path / "weights.npz", params, source="a test")
    with np.load(tmp_path / "weights.npz") as arrays:
        assert json.loads(str(arrays["metadata"]))["source"] == "a test"


def test_missing_weights_say_where_they_come_from_and_how_to_do_without():
    message = r"no perceptual weights at \S+: .*torchvision's VGG16 and the VGG heads "
    message += r"of LPIPS v0\.1.*config\.vqgan\.perceptual_weights.*perceptual_weight=0"
    with pytest.raises(ValueError, match=message):
        load_perceptual()


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs", b"PK\x03\x04 cut"]
)
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not hold perceptual weights"):
        load_perceptual(path)


def test_arrays_without_our_metadata_are_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", heads=np.ones(3))
    with pytest.raises(ValueError, match="does not hold perceptual weights"):
        load_perceptual(tmp_path / "weights.npz")


def test_an_incomplete_tree_is_not_written(params, tmp_path):
    del params["vgg"]["conv3_2"]
    with pytest.raises(ValueError, match=r"vgg/conv3_2/bias is None, not \(32,\)"):
        save_perceptual(tmp_path / "weights.npz", params)
    assert not list(tmp_path.iterdir())
