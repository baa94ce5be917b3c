import json

import ml_dtypes
import numpy as np
import pytest
from golden import FOLDER
from torch_like import Parameter, save_legacy, save_zip

from taming_jax.interop.checkpoint import (
    Tensor,
    open_checkpoint,
    write_safetensors,
    write_torch,
)
from taming_jax.interop.formats.archives import Writer

SAVE = pytest.mark.parametrize("save", [save_zip, save_legacy])
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32]
DTYPES += [np.int16, np.int8, np.uint8, np.bool, np.complex64, np.complex128]
GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("name", ["13_vqmodel", "13_net2net"])
def test_checkpoints_of_the_original_are_read(name):
    content = open_checkpoint(FOLDER / f"{name}.ckpt")
    told = json.loads((FOLDER / "index.json").read_text())["files"][f"{name}.ckpt"]
    assert list(content) == told["keys"]
    for key in ("epoch", "global_step"):
        assert content[key] == told[key]
    with np.load(FOLDER / f"{name}_ckpt.npz") as arrays:
        expected = {k[3:]: arrays[k] for k in arrays if k.startswith("sd/")}
    assert_same(content["state_dict"], expected)


@SAVE
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_dtype_is_read(tmp_path, save, dtype):
    arrays = {"array": np.array([[0, 1], [2, 3]]).astype(dtype)}
    save(tmp_path / "file", arrays)
    assert_same(open_checkpoint(tmp_path / "file"), arrays)


@SAVE
def test_views_are_read_with_their_strides(tmp_path, save):
    views = {
        "whole": GRID, "transposed": GRID.T, "part": GRID[1, :, 1:3], "row": GRID[0, 1],
        "every other": GRID[:, ::2, ::3], "one": GRID[1, 2, 3:4].reshape(()),
        "none": GRID[:0], "repeated": np.broadcast_to(GRID[:1, :1], (5, 1, 4)),
    }  # fmt: skip
    save(tmp_path / "file", views)
    assert_same(open_checkpoint(tmp_path / "file"), views)


@SAVE
@pytest.mark.parametrize("protocol", range(1, 6))  # 0 has no ids that are tuples
def test_all_protocols_of_pickles_are_read(tmp_path, save, protocol):
    content = {"epoch": 3, "weights": [Parameter(GRID)], "none": None}
    save(tmp_path / "file", content, protocol=protocol)
    read = open_checkpoint(tmp_path / "file")
    assert_same(read.pop("weights"), [GRID])
    assert read == {"epoch": 3, "none": None}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_big_endian_machines_write_the_same(tmp_path, dtype):
    array = np.arange(6).astype(dtype)
    save_zip(tmp_path / "file", [array], order="big")
    assert_same(open_checkpoint(tmp_path / "file"), [array])


@SAVE
def test_arrays_are_read_again_each_time(tmp_path, save):
    save(tmp_path / "file", [GRID])
    (tensor,) = open_checkpoint(tmp_path / "file")
    tensor.read()[:] = -1
    np.testing.assert_array_equal(tensor.read(), GRID)


@SAVE
def test_nothing_is_read_before_it_is_asked_for(tmp_path, save):
    save(tmp_path / "file", [GRID])
    (tensor,) = open_checkpoint(tmp_path / "file")
    assert (tensor.dtype, tensor.shape, tensor.nbytes) == (np.float32, (2, 3, 4), 96)
    (tmp_path / "file").unlink()
    with pytest.raises(ValueError, match="file cannot be read"):
        tensor.read()


CONTENT = {
    "state_dict": {"a": GRID, "b": GRID.T, "none": GRID[:0], "scalar": GRID[1, 1, 1]},
    "numbers": [0, -1, 255, 2**40, -(2**63), 1.5, True, False, None],
    "é": ("tuple", ()),
    "empty": {},
}


def test_what_is_written_for_torch_is_read(tmp_path):
    write_torch(tmp_path / "file.ckpt", CONTENT)
    read = open_checkpoint(tmp_path / "file.ckpt")
    assert_same(read.pop("state_dict"), CONTENT["state_dict"])
    assert read == {k: v for k, v in CONTENT.items() if k != "state_dict"}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_dtype_is_written(tmp_path, dtype):
    arrays = {"array": np.array([[0, 1], [2, 3]]).astype(dtype)}
    write_torch(tmp_path / "file", arrays)
    assert_same(open_checkpoint(tmp_path / "file"), arrays)
    if dtype is not np.complex128:
        write_safetensors(tmp_path / "file", arrays)
        assert_same(open_checkpoint(tmp_path / "file"), arrays)


@pytest.mark.parametrize("write", [write_torch, write_safetensors])
def test_tensors_of_one_file_are_written_to_another(tmp_path, write):
    write_torch(tmp_path / "one", CONTENT["state_dict"])
    write(tmp_path / "other", open_checkpoint(tmp_path / "one"))
    assert_same(open_checkpoint(tmp_path / "other"), CONTENT["state_dict"])


@pytest.mark.parametrize("write", [write_torch, write_safetensors])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, write):
    def fail():
        raise KeyboardInterrupt

    lost = Tensor(np.dtype(np.float32), (2,), fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "file", {"first": GRID, "lost": lost})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("write", "content"),
    [
        (write_torch, {"a": GRID.astype(np.uint16)}),
        (write_torch, {"a": object()}),
        (write_torch, {"a": GRID.astype(">f4")}),
        (write_torch, {"a": {1, 2}}),
        (write_safetensors, {"a": GRID.astype(np.complex128)}),
        (write_safetensors, {"__metadata__": GRID}),
    ],
)
def test_what_a_format_lacks_is_refused(tmp_path, write, content):
    with pytest.raises(ValueError, match=r"cannot|no storage"):
        write(tmp_path / "file", content)


@pytest.mark.parametrize(
    ("begin", "what"),
    [
        (b"", "it is empty; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\n <!DOCTYPE html><html>", "web"),
        (b"<?xml version='1.0'?><Error>", "web"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip; unpack"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\5\6" + bytes(18), "empty archive"),
        (bytes(257) + b"ustar\0" + bytes(300), "tar archive"),
        (b"{'a': 1}", "known here, by .*torch.save or of safetensors"),
        (b"\x80\x02K\x01.\x80\x02K\x02.\x80\x02K\x03.", "not of torch.save"),
    ],
)
def test_other_files_are_named(tmp_path, begin, what):
    path = tmp_path / "model.ckpt"
    path.write_bytes(begin)
    with pytest.raises(ValueError, match=f"model.ckpt cannot be read: .*{what}"):
        open_checkpoint(path)


def test_where_no_file_is_none_is_read(tmp_path):
    for path, what in ((tmp_path, "directory"), (tmp_path / "no", "not there")):
        with pytest.raises(ValueError, match=what):
            open_checkpoint(path)
    with pytest.raises(ValueError, match="copy it to this machine"):
        open_checkpoint("gs://bucket/model.ckpt")


def test_another_archive_is_named(tmp_path):
    np.savez(tmp_path / "file.npz", a=GRID)
    with pytest.raises(ValueError, match=r"not of torch.save; it holds 'a.npy'"):
        open_checkpoint(tmp_path / "file.npz")


def test_programs_of_torchscript_are_named(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        archive = Writer(file)
        archive.add("model/data.pkl", b"N.")
        archive.add("model/constants.pkl", b"N.")
        archive.finish()
    with pytest.raises(ValueError, match=r"TorchScript.*state_dict"):
        open_checkpoint(tmp_path / "file")


@pytest.mark.parametrize("kind", ["zip", "legacy", "torch", "safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_files_that_were_cut_short_are_refused(tmp_path, kind, share):
    path = tmp_path / "model.ckpt"
    writers = save_zip, save_legacy, write_torch, write_safetensors
    dict(zip(("zip", "legacy", "torch", "safetensors"), writers, strict=True))[kind](
        path, {"a": GRID, "b": GRID + 1, "c": GRID[0] * 2}
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"model.ckpt cannot be read: .*(cut|follow)"):
        open_checkpoint(path)


def test_torch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    write_torch(tmp_path / "file.ckpt", CONTENT)
    read = torch.load(tmp_path / "file.ckpt", weights_only=True)
    arrays = {k: v.numpy() for k, v in read.pop("state_dict").items()}
    np.testing.assert_equal(arrays, CONTENT["state_dict"])
    assert read == {k: v for k, v in CONTENT.items() if k != "state_dict"}


def assert_same(tensors, arrays):
    """Equal containers, dtypes, shapes, and numbers."""
    pairs = arrays.items() if isinstance(arrays, dict) else enumerate(arrays)
    assert len(tensors) == len(arrays)
    for key, array in pairs:
        read = tensors[key].read()
        assert (read.dtype, read.shape) == (array.dtype, array.shape), key
        assert (tensors[key].dtype, tensors[key].shape) == (read.dtype, read.shape)
        np.testing.assert_array_equal(read, array)
