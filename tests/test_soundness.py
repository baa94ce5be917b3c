"""Whether a damaged checkpoint can pass for a sound one."""

import contextlib
import json

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from numpy.testing import assert_array_equal

from taming_jax import soundness
from taming_jax.soundness import DamagedError, record_of

RNG = np.random.default_rng(0)


def state(**changes):
    """A leaf of every dtype that a train state has, and names like one's."""
    kernel = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    first = {
        "step": jnp.int32(7),
        "ema": {"kernel": jnp.asarray(kernel), "half": jnp.ones((4,), jnp.bfloat16)},
        "opt_state": ({"mu": jnp.zeros((2, 1))}, (), jnp.asarray([True, False])),
    }
    return first | changes


def save(directory, content, record):
    """STEP with these arrays, and a record that may be of others."""
    options = ocp.CheckpointManagerOptions(best_fn=len)  # else metrics are not kept
    with ocp.CheckpointManager(
        directory, item_names=("state", "record"), options=options
    ) as manager:
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(content),
            record=ocp.args.JsonSave(soundness.to_json(record)),
        )
        manager.save(7, args=arguments, metrics=dict(record.metrics))
    return epath.Path(directory / "7")


def digest(array):
    return record_of({"a": array}).arrays["a"].digest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "uint8"])
def test_every_flipped_bit_changes_the_digest(dtype):
    array = np.asarray(jnp.asarray(RNG.integers(0, 100, (3, 2)), dtype))
    digests = {digest(array)}
    flipped = array.copy()
    raw = flipped.reshape(-1).view(np.uint8)
    for place in range(raw.size):
        for bit in range(8):
            raw[place] ^= 1 << bit
            digests.add(digest(flipped))
            raw[place] ^= 1 << bit
    assert len(digests) == 1 + 8 * raw.size


def test_places_count():
    assert digest(np.float32([1, 2])) != digest(np.float32([2, 1]))


def test_nan_and_minus_zero_are_values_like_others():
    with_nan = np.float32([np.nan, 0.0])
    assert digest(with_nan) == digest(with_nan.copy())
    assert digest(with_nan) != digest(np.float32([np.nan, -0.0]))


def test_what_was_saved_is_sound(tmp_path):
    checkpoint = save(tmp_path, state(), record_of(state(), {"psnr": 20.5}))
    record = soundness.read_record(checkpoint)
    read = soundness.read_arrays(checkpoint, record, record.arrays)
    assert record == record_of(state(), {"psnr": 20.5})
    assert sorted(read) == ["ema/half", "ema/kernel", "opt_state/0/mu",
                            "opt_state/2", "step"]  # fmt: skip
    assert_array_equal(read["ema/kernel"], state()["ema"]["kernel"])


def test_one_wrong_value_is_found_and_its_array_named(tmp_path):
    kernel = np.array(state()["ema"]["kernel"])
    wrong = kernel.copy()
    wrong.view(np.uint32)[1, 2] ^= 1
    spoilt = state(ema=state()["ema"] | {"kernel": jnp.asarray(wrong)})
    checkpoint = save(tmp_path, spoilt, record_of(state()))
    record = soundness.read_record(checkpoint)
    with pytest.raises(DamagedError, match=r"1 arrays .* first ema/kernel"):
        soundness.read_arrays(checkpoint, record, record.arrays)


def test_what_was_not_asked_for_is_not_read(tmp_path):
    spoilt = state(step=jnp.int32(8))
    checkpoint = save(tmp_path, spoilt, record_of(state()))
    record = soundness.read_record(checkpoint)
    assert list(soundness.read_arrays(checkpoint, record, ["ema/half"])) == ["ema/half"]


@pytest.mark.parametrize("name", ["record/metadata", "metrics/metrics"])
def test_no_byte_of_record_or_metrics_can_change_unseen(tmp_path, name):
    checkpoint = save(tmp_path, state(), record_of(state(), {"psnr": 20.5}))
    whole = (checkpoint / name).read_bytes()
    sound = soundness.read_record(checkpoint)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (checkpoint / name).write_bytes(changed)
        with contextlib.suppress(DamagedError):
            assert soundness.read_record(checkpoint) == sound
    (checkpoint / name).write_bytes(whole[:-3])
    with pytest.raises(DamagedError):
        soundness.read_record(checkpoint)


def test_a_checkpoint_without_a_record_is_damaged(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "metrics").write_text(json.dumps({}))
    with pytest.raises(DamagedError, match="record"):
        soundness.read_record(epath.Path(tmp_path))
