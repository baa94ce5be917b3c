"""What the compiled steps of a larger picture cost: operations, and memory."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from taming_jax.conditions import windows as told_in
from taming_jax.models.transformer import Transformer
from taming_jax.sampling import Filters
from taming_jax.windows import Windows, drawing
from taming_jax.windows.places import schedule
from taming_jax.windows.steps import Asked, blocks_program, exact_program


def ints(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def asked_of(batch, places):
    """Samples that are told a label, and no filter."""
    return Asked(
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch)),
        told_in.Same(ints(batch, 1)),
        None,
        None,
        Filters(),
        jax.ShapeDtypeStruct((places,), jnp.float32),
    )


def params_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), ints(1, 2))["params"]


def test_a_place_costs_less_than_five_eighths_of_all():
    """A label, 16 x 16 codes, in the middle of a picture."""
    model = Transformer(
        vocab_size=520, length=256, grid=(16, 16), width=64, layers=4, heads=4
    )
    windows, params = Windows((64, 64), (16, 16)), params_of(model)
    whole = jax.jit(model.apply).lower({"params": params}, ints(4, 256))
    asked, table = asked_of(1, 64 * 64), (ints(1072, 4),) * 2
    program = exact_program(model, windows, 512, False, 143)
    ours = program.lower(ints(1, 64 * 64), params, asked, table, 0, 1)
    costs = [each.compile().cost_analysis()["flops"] for each in (whole, ours)]
    assert costs[1] < costs[0] / 1.6


@pytest.mark.parametrize("stride", [1, 2])
def test_memory_does_not_grow_with_the_height(stride):
    """Beside the codes; as the compiler sets it aside, for 8 rows and for 64."""
    model = Transformer(
        vocab_size=19, length=16, grid=(4, 4), width=24, layers=1, heads=3
    )
    low, high = (
        set_aside(model, Windows((rows, 12), (4, 4), stride)) for rows in (8, 64)
    )
    assert 0 < high <= low


def set_aside(model, windows):
    """Bytes of two samples, beside what goes in and comes out."""
    places = windows.shape[0] * windows.shape[1]
    steps, canvas = schedule(windows), ints(2, places)
    units = (ints(*steps.rows.shape),) * 2
    params, asked = params_of(model), asked_of(2, places)
    if windows.stride == 1:
        program = exact_program(model, windows, 16, False, 15)
        lowered = program.lower(canvas, params, asked, units, 0, 1)
    else:
        shape = 1, 2, windows.blocks[1], 3, 16, 8  # [L,B,blocks across,G,S,E]
        state = canvas, *[jax.ShapeDtypeStruct(shape, jnp.float32)] * 2
        begin = drawing.known_beginnings(windows, steps, partly=False)
        program = blocks_program(model, windows, 16, False, tuple(begin.tolist()))
        table = units, units, ints(len(steps.rows))
        lowered = program.lower(state, params, asked, table, 0, 1)
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.devices(8)
@pytest.mark.parametrize("stride", [1, 2])
def test_devices_that_share_samples_have_nothing_to_tell_one_another(stride):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def shared(arrays, *spec):
        where = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), arrays
        )

    model = Transformer(
        vocab_size=19, length=16, grid=(4, 4), width=24, layers=2, heads=3
    )
    windows = Windows((8, 8), (4, 4), stride)
    asked = asked_of(8, 64)
    asked = asked._replace(
        keys=shared(asked.keys, "data"),
        told=shared(asked.told, "data"),
        untold=shared(asked.told, "data"),
        given=shared(ints(8, 64), "data"),
    )
    canvas, params = shared(ints(8, 64), "data"), params_of(model)
    steps = schedule(windows)
    units = (ints(*steps.rows.shape),) * 2
    if stride == 1:
        program = exact_program(model, windows, 16, False, 15)
        lowered = program.lower(canvas, params, asked, units, 0, 1)
    else:
        cache = jax.ShapeDtypeStruct((2, 16, 4, 3, 16, 8), jnp.float32)
        state = canvas, *[shared(cache, None, "data")] * 2
        begin = drawing.known_beginnings(windows, steps, partly=True)
        program = blocks_program(model, windows, 16, False, tuple(begin.tolist()))
        table = units, units, ints(len(steps.rows))
        lowered = program.lower(state, params, asked, table, 0, 1)
    compiled = lowered.compile().as_text()
    assert not re.findall("all-(?:reduce|gather|to-all)|collective-permute", compiled)
