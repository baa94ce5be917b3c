import contextlib
import functools
import hashlib
import http.server
import json
import threading

import jax
import numpy as np
import pytest
from bucket import stand_in
from golden import golden
from numpy.testing import assert_array_equal
from published import published_perceptual

from taming_jax.interop import perceptual
from taming_jax.interop.fetch import Published
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.names import PERCEPTUAL
from taming_jax.interop.perceptual import (
    convert_perceptual,
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


def test_a_file_that_is_not_there_is_named_and_how_to_do_without(tmp_path):
    message = (
        r"no perceptual weights at \S+none\.npz: there is no such file; make them "
    )
    message += r"by `python -m taming_jax convert perceptual VGG HEADS OUTPUT`.*"
    message += r"config\.vqgan\.perceptual_weights.*perceptual_weight=0"
    with pytest.raises(ValueError, match=message):
        load_perceptual(tmp_path / "none.npz")


@pytest.fixture
def published(params, tmp_path):
    """(VGG16's file, the heads'), with torchvision's and the authors' names."""
    vgg, heads = published_perceptual(params)
    files = tmp_path / "vgg16.pth", tmp_path / "heads.pth"
    write_torch(files[0], vgg)
    write_torch(files[1], heads)
    return files


def test_two_published_files_become_one(params, published, tmp_path):
    convert_perceptual(*published, tmp_path / "out.npz")
    jax.tree.map(assert_array_equal, load_perceptual(tmp_path / "out.npz"), params)


def test_files_in_the_wrong_order_are_refused(published, tmp_path):
    message = r"heads\.pth is not torchvision's VGG16: .*lin0\.model\.1\.weight"
    with pytest.raises(ValueError, match=message):
        convert_perceptual(*published[::-1], tmp_path / "out.npz")


def publish(monkeypatch, published, address):
    for name, file in zip(("VGG16", "HEADS"), published, strict=True):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        there = Published(f"{address}/{file.name}", digest)
        monkeypatch.setattr(perceptual, name, there)


def test_without_a_path_they_are_fetched_once(params, published, monkeypatch):
    with served(published[0].parent) as address:
        publish(monkeypatch, published, address)
        jax.tree.map(assert_array_equal, load_perceptual(), params)
    jax.tree.map(assert_array_equal, load_perceptual(), params)  # nobody serves them
    assert {p.suffix for p in default_path().parent.iterdir()} == {".npz", ".lock"}


def test_other_bytes_than_were_published_are_refused(published, monkeypatch):
    with served(published[0].parent) as address:
        publish(monkeypatch, published, address)
        published[1].write_bytes(b"<html>log in</html>")
        with pytest.raises(ValueError, match="sent another file than was published"):
            load_perceptual()
    assert not default_path().exists()


def test_without_a_network_it_is_said_how_to_do_without(published, monkeypatch):
    publish(monkeypatch, published, "http://localhost:9")
    message = r"cannot be fetched here \(.*refused.*\).*perceptual_weight=0"
    with pytest.raises(ValueError, match=message):
        load_perceptual()


@contextlib.contextmanager
def served(directory):
    """The address of a server of the files in a directory."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=directory
    )
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


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
