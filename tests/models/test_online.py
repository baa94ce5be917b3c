import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.quantizers import Online

KEY = jax.random.key(0)
Z = jax.random.normal(jax.random.key(1), (4, 5, 5, 3))
MODULE = Online(20, 3, decay=0.9)


@pytest.fixture(scope="module")
def state():
    """(params, codebook) in the middle of training: some codes idle, others not."""
    table = jax.random.normal(jax.random.key(2), (20, 3)).at[10:].add(9.0)
    shares = jnp.linspace(0.004, 0, 20)  # those that are far away are idle
    return {"embedding": table}, {"usage": jnp.zeros(20), "shares": shares}


def updated(state):
    return MODULE.after_update(*state, Z, step=7, key=KEY)


def written_down(state):
    """The paper's equations code by code: (shares, how far each is to move)."""
    (params, codebook), latents = state, np.float64(Z).reshape(-1, 3)
    table = np.float64(params["embedding"])
    counts = np.zeros(20)
    for z in latents:
        counts[np.argmin([np.sum((z - e) ** 2) for e in table])] += 1
    shares = 0.9 * np.float64(codebook["shares"]) + 0.1 * counts / len(latents)
    return shares, np.exp(-shares * 20 * 10 / (1 - 0.9) - 0.001)


def test_shares_are_running_means_of_each_codes_share(state):
    _, codebook = updated(state)
    assert_allclose(codebook["shares"], written_down(state)[0], rtol=1e-5)


def test_codes_move_by_their_idleness_towards_some_latent(state):
    before, after = state[0]["embedding"], updated(state)[0]["embedding"]
    _, way = written_down(state)
    for e, moved, a in zip(*map(np.float64, (before, after)), way, strict=True):
        wanted = (1 - a) * e + a * np.float64(Z).reshape(-1, 3)
        # the nearest of all the places that it may have moved to
        assert np.abs(wanted - moved).max(-1).min() < 1e-5
    assert way.min() < 1e-3
    assert way.max() > 0.9


def test_different_codes_move_towards_different_latents(state):
    params, codebook = state
    idle = {**codebook, "shares": jnp.zeros(20)}, {"embedding": 0 * params["embedding"]}
    after, _ = MODULE.after_update(idle[1], idle[0], Z + 9, step=7, key=KEY)
    assert len(np.unique(after["embedding"][1:], axis=0)) == 19  # 0 takes all latents


def test_at_first_the_table_becomes_latents():
    variables = jax.jit(lambda z: MODULE.init(KEY, z, train=True))(Z)
    far = Z + 50.0
    params, _ = MODULE.after_update(
        variables["params"], variables["codebook"], far, step=0, key=KEY
    )
    codes = MODULE.apply({"params": params}, far, train=False).codes
    assert len(np.unique(codes)) == 20 - 1  # all but the one that had all of them


def test_codes_in_use_are_left_to_the_optimizer(state):
    params, codebook = state
    busy = {**codebook, "shares": jnp.full(20, 1.0)}
    after, _ = MODULE.after_update(params, busy, Z, step=7, key=KEY)
    assert_array_equal(after["embedding"], params["embedding"])


def test_idle_codes_are_not_revived_on_top():
    with pytest.raises(ValueError, match=r"Online has revive_every=5, .*in every step"):
        Online(8, 4, revive_every=5)
