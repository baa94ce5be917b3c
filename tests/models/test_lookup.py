"""Look-ups in chunks against the same in one piece, written down plainly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models import lookup
from taming_jax.models.lookup import (
    best,
    by_distance,
    entropies,
    index_backpropagation,
    nearest,
    nearest_codes,
    perturbed,
)

KEY = jax.random.key(0)
Z = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
TABLE = jax.random.normal(jax.random.key(2), (30, 5))
BIAS = jax.random.normal(jax.random.key(3), (30,))
LARGE = 2**18


@pytest.fixture(params=[7, 10, 4096], ids=["uneven", "even", "whole"])
def chunk(request, monkeypatch):
    """30 codes: in five chunks, the last of which is not full; in three; in one."""
    monkeypatch.setattr(lookup, "CHUNK", request.param)
    return request.param


def distances(z, table):
    z, table = np.float64(z).reshape(-1, 1, 5), np.float64(table)
    return np.square(z - table).sum(-1)  # [N,K]


def test_the_nearest_code_is_the_nearest(chunk):
    codes = nearest(Z, TABLE)
    assert codes.dtype == jnp.int32
    assert_array_equal(codes.ravel(), distances(Z, TABLE).argmin(-1))


def test_the_first_of_two_equally_near_codes_is_taken():
    table = jnp.array([[5.0], [1.0], [1.0], [-1.0]])
    assert_array_equal(nearest(jnp.array([[1.0], [0.0]]), table), [1, 1])


def test_the_best_code_has_the_highest_score(chunk):
    scores = np.float64(Z) @ np.float64(TABLE).T + BIAS
    assert_array_equal(best(Z, TABLE, BIAS), scores.argmax(-1))


def test_the_first_of_equals_wins(chunk):
    table = jnp.concatenate([TABLE[:1] + 9, TABLE[:14], TABLE[:14]])
    assert_array_equal(nearest(TABLE[:14], table), 1 + np.arange(14))


def test_without_bias_all_scores_may_be_negative(chunk):
    """What fills the last chunk up has score 0 before its bias, and must not win."""
    assert nearest(jnp.full((1, 5), -50.0), TABLE + 50)[0] < 30


def test_neighbours_are_the_nearest_others_in_their_order(chunk):
    codes = jnp.array([[3, 29], [0, 3]])
    apart = distances(TABLE[codes], TABLE)
    expected = apart.argsort(-1)[:, 1:12]  # the first is the code itself
    assert_array_equal(nearest_codes(codes, TABLE, 11).reshape(4, 11), expected)


def test_a_code_is_no_neighbour_of_its_own_even_among_equals(chunk):
    table = jnp.zeros((30, 5))
    near = nearest_codes(jnp.arange(30), table, 29)
    assert_array_equal(jnp.sort(near), [np.delete(np.arange(30), k) for k in range(30)])


def test_perturbed_codes_are_among_the_nearest():
    codes = jax.random.randint(KEY, (40, 6), 0, 30)
    moved = perturbed(codes, TABLE, KEY, probability=1.0, neighbours=3)
    near = nearest_codes(codes, TABLE, 3)
    assert (moved[..., None] == near).any(-1).all()
    assert len(np.unique(np.argmax(moved[..., None] == near, -1))) == 3


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_codes_are_perturbed_with_the_probability(probability):
    codes = jnp.zeros(4000, jnp.int32)
    moved = perturbed(codes, TABLE, KEY, probability=probability, neighbours=100)
    deviation = np.sqrt(probability * (1 - probability) / 4000)
    assert_allclose(jnp.mean(moved != codes), probability, rtol=0, atol=4 * deviation)


def dense_entropies(z, rows, bias):
    p = jax.nn.softmax(z.reshape(-1, 5) @ rows.T + bias)
    return jnp.array([-(p * jnp.log(p)).sum(-1).mean(), -(q := p.mean(0)) @ jnp.log(q)])


def test_entropies_are_those_of_the_softmax(chunk):
    expected = dense_entropies(*map(np.float64, (Z, TABLE, BIAS)))
    assert_allclose(entropies(Z, TABLE, BIAS), expected, rtol=1e-5)


def test_gradients_of_entropies_are_those_of_the_softmax(chunk):
    def weighted(function):
        return lambda *of: jnp.vdot(jnp.array([0.7, -1.3]), jnp.array(function(*of)))

    ours = jax.grad(weighted(entropies), (0, 1, 2))(Z, TABLE, BIAS)
    dense = jax.grad(weighted(dense_entropies), (0, 1, 2))(Z, TABLE, BIAS)
    # Sums of a few dozen terms, in another order.
    for one, other in zip(ours, dense, strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_entropies_hold_where_softmax_is_sharp_or_flat(chunk, temperature):
    each, of_mean = entropies(Z, *by_distance(TABLE, temperature))
    counts = np.bincount(nearest(Z, TABLE).ravel(), minlength=30) / Z[..., 0].size
    used = counts[counts > 0]
    of_counts = -np.sum(used * np.log(used))
    expected = (0, of_counts) if temperature < 1 else (np.log(30), np.log(30))
    # Where two codes are equally near within a thousandth, a latent is not quite sure.
    assert_allclose((each, of_mean), expected, rtol=0, atol=0.02)


def test_entropies_of_equal_codes_have_finite_gradients(chunk):
    def summed(z, table):
        return sum(entropies(z, *by_distance(table, 0.01)))

    pulls = jax.grad(summed, (0, 1))(jnp.zeros((3, 5)), jnp.zeros((30, 5)))
    assert all(jnp.isfinite(pull).all() for pull in pulls)


def dense_backpropagation(z, table):
    p = jax.nn.softmax(jnp.einsum("...d,kd->...k", z, table))
    o = jax.nn.one_hot(jnp.argmax(p, -1), len(table))
    return jnp.einsum("...k,kd->...d", o - jax.lax.stop_gradient(p) + p, table)


def test_index_backpropagation_is_that_of_the_whole_softmax(chunk):
    probe = jax.random.normal(KEY, Z.shape)
    ours, pull = jax.vjp(lambda z, e: index_backpropagation(z, e, best(z, e)), Z, TABLE)
    dense, pull_dense = jax.vjp(dense_backpropagation, Z, TABLE)
    # (1 - p) + p is not always 1.
    assert_allclose(ours, dense, rtol=1e-5, atol=1e-6)
    for one, other in zip(pull(probe), pull_dense(probe), strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_index_backpropagation_holds_with_large_scores(chunk):
    z, table = 1e3 * Z, 1e3 * TABLE
    _, pull = jax.vjp(lambda z, e: index_backpropagation(z, e, best(z, e)), z, table)
    assert all(jnp.isfinite(part).all() for part in pull(jnp.ones_like(z)))


SOFT = {
    "nearest": (nearest, False),
    "entropies": (lambda z, e: sum(entropies(z, *by_distance(e, 0.01))), True),
    "index_backpropagation": (
        lambda z, e: index_backpropagation(z, e, best(z, e)).sum(),
        True,
    ),
    "perturbed": (
        lambda z, e: perturbed(best(z, e), e, KEY, probability=0.5, neighbours=100),
        False,
    ),
}


@pytest.mark.parametrize("name", SOFT)
def test_large_tables_are_never_compared_with_all_latents_at_once(name):
    function, is_soft = SOFT[name]
    function = jax.value_and_grad(function, (0, 1)) if is_soft else function
    latents, dim = 1024, 8
    z, e = (jax.ShapeDtypeStruct((n, dim), "float32") for n in (latents, LARGE))
    used = jax.jit(function).lower(z, e).compile().memory_analysis()
    scores, table = 4 * latents * lookup.CHUNK, 4 * LARGE * dim
    # Half of a dozen arrays of a chunk's scores and some tables; all are 64 chunks.
    assert used.temp_size_in_bytes < 6 * scores + 4 * table < 4 * latents * LARGE / 7


@pytest.mark.devices(8)
@pytest.mark.parametrize("split", ["latents", "codes", "both"])
def test_chunks_are_the_same_however_arrays_lie_on_devices(split, monkeypatch):
    monkeypatch.setattr(lookup, "CHUNK", 10)
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=axes)
    z = jnp.tile(Z, (4, 1, 1, 1))  # [8,3,4,5]

    @jax.jit
    def work(z, table):
        pull = jax.grad(lambda z, e: sum(entropies(z, *by_distance(e))), (0, 1))
        dense = jax.vjp(lambda z, e: index_backpropagation(z, e, best(z, e)), z, table)
        return nearest(z, table), pull(z, table), dense[1](jnp.ones_like(z))

    def lie(array, over):
        return jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.P(over)))

    spread = lie(z, None if split == "codes" else ("data", "fsdp"))
    table = lie(TABLE, None if split == "latents" else "fsdp")
    codes, *pulls = work(spread, table)
    expected, *dense = work(z, TABLE)
    assert_array_equal(codes, expected)
    # Sums over devices run in another order.
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5), pulls, dense)
