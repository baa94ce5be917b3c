from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models import attention
from taming_jax.models.attention import (
    MLPS,
    Block,
    attend,
    rotary_angles,
    rotate,
    rotation_by,
)


def test_rotation_is_multiplication_by_a_unit_complex_number():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 8))
    angles = jax.random.normal(jax.random.key(1), (5, 4))
    turned = np.asarray(jax.jit(rotate)(x, rotation_by(angles)))
    numbers = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)[:, None]
    assert_allclose(turned[..., :4] + 1j * turned[..., 4:], numbers, atol=1e-6)


@pytest.mark.parametrize("shift", [(0, 5), (4, 0), (7, 3)])
def test_rotated_products_depend_on_differences_of_rows_and_columns_only(shift):
    rows, columns = np.divmod(np.arange(6), 3)

    def products(down, right):
        """What one query at each place makes of one key at each place: [6,6]."""
        at = rows + down, columns + right
        angles = rotary_angles(*at, head_width=16, base=100.0)
        q, k = jax.random.normal(jax.random.key(2), (2, 1, 1, 1, 16))
        rotation = rotation_by(angles)
        q, k = (rotate(jnp.tile(x, (1, 6, 1, 1)), rotation) for x in (q, k))
        return jnp.einsum("btne,bsne->ts", q, k)

    # Angles of up to ten radians are rounded by a few 1e-7.
    assert_allclose(products(*shift), products(0, 0), atol=3e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_turn_different_pairs(axis):
    place = [np.zeros(1), np.zeros(1)]
    place[axis] += 3
    angles = rotary_angles(*place, head_width=16, base=100.0)
    turned = np.arange(8) // 4 == axis
    assert_array_equal(angles[0] != 0, turned)


def test_the_length_of_queries_and_keys_does_not_matter_under_qk_norm():
    block = Block(width=24, heads=3, qk_norm=True, bias=False)
    variables = jax.jit(init_of(block))(jax.random.key(0))
    x = jax.random.normal(jax.random.key(3), (2, 5, 24))

    @jax.jit
    def queries_and_keys(factor):
        params = dict(variables["params"])
        for name in ("query", "key"):
            params[name] = {"kernel": factor * params[name]["kernel"]}
        return block.apply({"params": params}, x, None, method="project")[:2]

    # The normalisation's epsilon is what makes a difference.
    long, longer = jnp.stack([jnp.stack(queries_and_keys(f)) for f in (1e3, 1e4)])
    assert_allclose(long, longer, rtol=1e-3, atol=1e-5)


def test_what_may_not_be_seen_does_not_count():
    q, k, v = jax.random.normal(jax.random.key(4), (3, 1, 2, 4, 8))
    mask = jnp.array([True, False, True, False])
    seen = jax.jit(attend)(q, k, v, mask)
    alone = jax.jit(attend)(q, k[:, :, ::2], v[:, :, ::2], jnp.ones(2, bool))
    assert_allclose(seen, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [4, 2])
def test_the_fused_kernel_is_asked_for_what_the_plain_one_does(monkeypatch, groups):
    """By XLA's implementation, where cuDNN's is asked for: there is no GPU here."""
    q, k, v = (
        jax.random.normal(jax.random.key(i), (2, heads, 6, 8))
        for i, heads in enumerate((4, groups, groups))
    )
    asked, plainly = [], jax.nn.dot_product_attention

    def kernel(*arrays, implementation, **settings):
        asked.append(implementation)
        return plainly(*arrays, implementation="xla", **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    assert_allclose(attention.attend_fused(q, k, v), attend(q, k, v), atol=1e-6)
    assert asked == ["cudnn"]


HOPPER = SimpleNamespace(compute_capability="9.0")


def arrays(dtype="bfloat16", width=64):
    """Queries, keys and values of two places."""
    return (jnp.ones((1, 1, 2, width), dtype),) * 3


@pytest.mark.parametrize(
    ("dtype", "width", "fuses"),
    [
        ("bfloat16", 64, True),
        ("float16", 128, True),
        ("float32", 64, False),
        ("bfloat16", 60, False),
        ("bfloat16", 136, False),
    ],
)
def test_attention_is_fused_where_the_kernel_takes_it(monkeypatch, dtype, width, fuses):
    monkeypatch.setattr(jax, "devices", lambda: [HOPPER])
    monkeypatch.setattr(attention, "attend_fused", attend)
    assert attention.fuses(*arrays(dtype, width)) == fuses


@pytest.mark.parametrize(
    ("device", "fuses"),
    [
        (SimpleNamespace(), False),
        (SimpleNamespace(compute_capability=None), False),
        (SimpleNamespace(compute_capability="7.5"), False),
        (SimpleNamespace(compute_capability="8.0"), True),
        (SimpleNamespace(compute_capability="12.1"), True),
        (SimpleNamespace(compute_capability="gfx90a"), False),
    ],
)
def test_attention_is_fused_on_devices_that_can(monkeypatch, device, fuses):
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(attention, "attend_fused", attend)
    assert attention.fuses(*arrays()) == fuses


@pytest.mark.parametrize("reason", [RuntimeError, NotImplementedError])
def test_attention_is_plain_where_the_kernel_is_not_to_be_had(monkeypatch, reason):
    """As jax raises where there is no cuDNN, and where it is too old."""

    def missing(q, k, v):
        raise reason

    monkeypatch.setattr(jax, "devices", lambda: [HOPPER])
    monkeypatch.setattr(attention, "attend_fused", missing)
    block = Block(width=64, heads=1, dtype=jnp.bfloat16)
    variables = jax.jit(init_of(block))(jax.random.key(0))
    parts = *arrays(), None
    mixed = jax.jit(partial(block.apply, train=False, method="combine"))(
        variables, jnp.ones((1, 2, 64), jnp.bfloat16), *parts
    )
    assert mixed.shape == (1, 2, 64)


def test_a_mask_is_not_for_the_kernel(monkeypatch):
    monkeypatch.setattr(attention, "fuses", lambda q, k, v: True)
    monkeypatch.setattr(attention, "attend_fused", None)  # not to be called
    block = Block(width=64, heads=1)
    variables = jax.jit(init_of(block))(jax.random.key(0))
    mask = jnp.ones((2, 2), bool)
    x = jnp.ones((1, 2, 64))
    assert block.apply(variables, x, None, mask, train=False).shape == x.shape


def test_this_processor_has_no_fused_kernel():
    assert not attention.fuses(*arrays())


def test_equal_keys_are_averaged():
    q, v = jax.random.normal(jax.random.key(5), (2, 1, 2, 4, 8))
    seen = jax.jit(attend)(q, jnp.ones_like(q), v, jnp.ones(4, bool))
    expected = jnp.broadcast_to(v.mean(2, keepdims=True), v.shape)
    assert_allclose(seen, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("relu2", ([-1.0, 3.0],), [0.0, 9.0]),
        ("swiglu", ([2.0, 5.0], [0.0, 100.0]), [0.0, 500.0]),
        ("gelu", ([-40.0, 0.0, 40.0],), [0.0, 0.0, 40.0]),
    ],
)
def test_activations_at_points_that_are_known(name, inputs, expected):
    assert_allclose(MLPS[name].activation(*map(jnp.array, inputs)), expected)


def test_a_gated_mlp_has_as_many_weights_as_a_plain_one():
    def weights(mlp):
        params = shapes_of(Block(width=768, heads=12, mlp=mlp, bias=False))
        names = {"up", "gate", "down"} & params.keys()
        return sum(params[name]["kernel"].size for name in names)

    assert weights("swiglu") == weights("gelu")


def test_the_width_of_the_mlp_can_be_set():
    params = shapes_of(Block(width=24, heads=3, mlp="swiglu", mlp_width=40))
    assert {params[n]["kernel"].shape for n in ("up", "gate")} == {(24, 40)}


def shapes_of(block):
    return jax.eval_shape(init_of(block), jax.random.key(0))["params"]


def init_of(block):
    x, mask = jnp.zeros((1, 1, block.width)), jnp.ones((1, 1), bool)
    return partial(block.init, x=x, rotation=None, mask=mask, train=False)
