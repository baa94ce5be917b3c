from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from taming_jax.training import mesh as meshes
from taming_jax.training.mesh import batch_sharding, check_batch, create_mesh
from taming_jax.training.recipe import Mesh


def abstract(**sizes):
    """A mesh of eight devices that need not be there, for what only asks its shape."""
    sizes = {"data": 1, "fsdp": 1, "tensor": 1} | sizes
    return AbstractMesh(tuple(sizes.values()), meshes.AXES)


@pytest.mark.devices(8)
def test_one_axis_takes_what_the_others_leave():
    shapes = [
        tuple(create_mesh(sizes).shape.values())
        for sizes in (Mesh(), Mesh(fsdp=2), Mesh(data=2, fsdp=-1, tensor=2))
    ]
    assert shapes == [(8, 1, 1), (4, 2, 1), (2, 2, 2)]


@pytest.mark.parametrize("sizes", [Mesh(fsdp=3), Mesh(data=2), Mesh(1, 2)], ids=str)
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes):
    with pytest.raises(ValueError, match=r"does not fit 1 devices.*data=-1 takes what"):
        create_mesh(sizes, jax.devices()[:1])


@pytest.mark.parametrize(
    ("sizes", "nearest"),
    [
        (Mesh(fsdp=3), ["data=2 x fsdp=4 x tensor=1", "data=4 x fsdp=2 x tensor=1"]),
        (Mesh(data=6), ["data=8 x fsdp=1 x tensor=1", "data=4 x fsdp=2 x tensor=1"]),
        (Mesh(2, 8, 1), ["data=2 x fsdp=4 x tensor=1", "data=1 x fsdp=8 x tensor=1"]),
        (Mesh(tensor=16), ["data=1 x fsdp=1 x tensor=8", "data=2 x fsdp=1 x tensor=4"]),
    ],
    ids=str,
)
def test_the_nearest_sizes_that_fit_are_named(sizes, nearest):
    """They are looked for before any device is touched."""
    with pytest.raises(ValueError, match=f"for instance {' or '.join(nearest)};"):
        create_mesh(sizes, [None] * 8)


@pytest.mark.parametrize("sizes", [Mesh(fsdp=-1), Mesh(data=0), Mesh(-2)], ids=str)
def test_sizes_that_mean_nothing_are_refused(sizes):
    with pytest.raises(ValueError, match="at least 1, and one may be -1"):
        create_mesh(sizes)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "remedy"),
    [(12, 1, "multiple of 8, for instance 16"), (8, 2, "of 16, for instance 16")],
)
def test_a_batch_that_cannot_be_split_is_refused(batch_size, accumulate, remedy):
    with pytest.raises(ValueError, match=f"batch_size={batch_size} cannot.*{remedy}"):
        check_batch(batch_size, accumulate, abstract(data=4, fsdp=2))


def test_a_batch_that_is_spread_is_split_over_tensor_too():
    with pytest.raises(ValueError, match="data x fsdp x tensor = 8 devices"):
        check_batch(4, 1, abstract(data=4, tensor=2), axes=meshes.AXES)


def test_heads_that_tensor_does_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"tensor=4 .*heads=6.*use tensor=1 or 2"):
        meshes.check_heads(6, abstract(data=2, tensor=4))


def test_a_batch_is_split_over_data_and_fsdp_alike():
    sharding = batch_sharding(abstract(data=4, fsdp=2))
    assert sharding.shard_shape((16, 4)) == (2, 4)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 8, 16), PartitionSpec(None, None, None, "fsdp")),
        ((3, 3, 16, 8), PartitionSpec(None, None, "fsdp")),
        ((512, 8), PartitionSpec("fsdp")),
        ((3, 3, 3, 3), PartitionSpec()),  # nothing divides
        ((), PartitionSpec()),
    ],
    ids=str,
)
def test_an_array_is_split_over_fsdp_along_its_largest_side(shape, spec):
    array = jax.ShapeDtypeStruct(shape, np.float32)
    assert meshes.state_shardings(array, abstract(data=2, fsdp=4)).spec == spec


def test_nothing_is_split_without_fsdp():
    array = jax.ShapeDtypeStruct((16, 16), np.float32)
    assert meshes.state_shardings(array, abstract(data=8)).spec == PartitionSpec()


def test_devices_are_named():
    line = meshes.describe_devices(create_mesh(Mesh(), jax.devices()[:1]))
    assert line.startswith("1 x cpu (cpu), mesh data 1 x fsdp 1 x tensor 1, 1 process")


def test_an_idle_accelerator_is_warned_of(monkeypatch, capsys):
    there = SimpleNamespace(exists=lambda: True)
    monkeypatch.setattr(meshes, "Path", lambda _: there)
    meshes.describe_devices(create_mesh(Mesh(), jax.devices()[:1]))
    assert "WARNING: training on the CPU although" in capsys.readouterr().err


def test_nobody_is_warned_where_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr(meshes, "Path", lambda _: Path("/nowhere"))
    meshes.describe_devices(create_mesh(Mesh(), jax.devices()[:1]))
    assert capsys.readouterr().err == ""
