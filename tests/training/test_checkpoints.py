import shutil

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal

from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.mesh import (
    abstract_with_shardings,
    create_mesh,
    state_shardings,
)
from taming_jax.training.recipe import Mesh

BEST = ("psnr", "max")


def small_state(step):
    """What every state has that is asked for here; its numbers say which step's."""
    return {
        "step": jnp.int32(step),
        "params": {"kernel": jnp.full((16, 8), 10.0 * step)},
        "ema": {"kernel": jnp.arange(128.0).reshape(16, 8) + step},
        "codebook": {"usage": jnp.full((8,), float(step))},
    }


def open_checkpoints(directory, keep=2, best=BEST):
    return Checkpoints(directory / "checkpoints", keep=keep, best=best)


def save(directory, ratings, **settings):
    """A checkpoint of each step in `ratings`, with that metric or (None) without."""
    name = settings.get("best", BEST)[0]
    with open_checkpoints(directory, **settings) as checkpoints:
        for step, value in ratings.items():
            metrics = None if value is None else {name: value}
            checkpoints.save(step, small_state(step), metrics)


def abstract():
    """The state by its shapes, on one device."""
    return placed(Mesh(data=1, fsdp=1))[1]


def spoil_array(checkpoint):
    """Cuts the largest file of its arrays short."""
    files = [path for path in (checkpoint / "state").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])


def set_aside(directory):
    return sorted(path.name for path in (directory / "damaged").iterdir())


def steps(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir())


def test_the_newest_are_kept(tmp_path):
    save(tmp_path, dict.fromkeys(range(1, 6)))
    assert steps(tmp_path) == [4, 5]


def test_the_best_is_kept_besides(tmp_path):
    save(tmp_path, {1: 10.0, 2: 30.0, 3: 20.0, 4: None, 5: None})
    assert steps(tmp_path) == [2, 4, 5]


def test_the_best_may_be_the_lowest(tmp_path):
    save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: 4.0}, keep=1, best=("loss", "min"))
    assert steps(tmp_path) == [2, 4]


def test_better_is_better_than_all_that_is_kept(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        first = checkpoints.is_best({"psnr": 0.0})
        checkpoints.save(1, small_state(1), {"psnr": 20.0})
        checkpoints.save(2, small_state(2), None)
        checkpoints.wait()
        later = [checkpoints.is_best({"psnr": value}) for value in (19.0, 20.0, 21.0)]
    assert (first, later) == (True, [False, False, True])


def test_what_comes_back_is_what_was_saved(tmp_path):
    save(tmp_path, {1: None})
    with open_checkpoints(tmp_path) as checkpoints:
        step, restored = checkpoints.restore(abstract())
    assert step == 1
    jax.tree.map(assert_array_equal, restored, small_state(1))


def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(tmp_path, capsys):
    save(tmp_path, {1: None, 2: None})
    spoil_array(tmp_path / "checkpoints" / "2")
    with open_checkpoints(tmp_path) as checkpoints:
        step, restored = checkpoints.restore(abstract())
    assert step == 1
    jax.tree.map(assert_array_equal, restored, small_state(1))
    assert (steps(tmp_path), set_aside(tmp_path)) == ([1], ["2"])
    assert "checkpoint 2 was set aside in" in capsys.readouterr().err


def test_no_file_of_a_checkpoint_can_stop_a_run(tmp_path):
    """Each of them in turn with a byte that is no text and no array of ours."""
    save(tmp_path, {1: None, 2: None})
    whole = tmp_path / "whole"
    (tmp_path / "checkpoints").rename(whole)
    names = [p.relative_to(whole) for p in (whole / "2").rglob("*") if p.is_file()]
    for number, name in enumerate(names):
        run = tmp_path / f"run-{number}"
        shutil.copytree(whole, run / "checkpoints")
        content = bytearray((run / "checkpoints" / name).read_bytes())
        content[len(content) // 2] = 0xFD
        (run / "checkpoints" / name).write_bytes(content)
        with open_checkpoints(run) as checkpoints:
            step, restored = checkpoints.restore(abstract())
        assert step in (1, 2)
        jax.tree.map(assert_array_equal, restored, small_state(step))


def test_one_whose_metrics_cannot_be_read_is_set_aside(tmp_path):
    save(tmp_path, {1: 10.0, 2: 20.0, 3: 15.0})
    metrics = tmp_path / "checkpoints" / "2" / "metrics" / "metrics"
    metrics.write_text(metrics.read_text()[:5])
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 3
    assert (steps(tmp_path), set_aside(tmp_path)) == ([3], ["2"])


def test_nothing_that_was_set_aside_is_written_over(tmp_path):
    for _ in range(2):
        save(tmp_path, {1: None})
        spoil_array(tmp_path / "checkpoints" / "1")
        with open_checkpoints(tmp_path) as checkpoints:
            assert checkpoints.restore(abstract()) is None
    assert set_aside(tmp_path) == ["1", "1-1"]


def test_another_models_checkpoint_is_refused_and_stays(tmp_path):
    save(tmp_path, {1: None})
    wider = abstract() | {"params": {"kernel": jax.ShapeDtypeStruct((16, 9), "f4")}}
    refused = r"params/kernel: float32\[16, 8\] there, .*9.*version and the recipe"
    with (
        open_checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match=refused),
    ):
        checkpoints.restore(wider)
    assert steps(tmp_path) == [1]


def test_what_was_not_finished_does_not_count(tmp_path):
    save(tmp_path, {1: None})
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-7").mkdir()
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1


def placed(sizes):
    """(shardings, abstract state) of `small_state` over the first devices."""
    mesh = create_mesh(sizes, jax.devices()[: sizes.data * sizes.fsdp])
    shapes = jax.eval_shape(lambda: small_state(1))
    shardings = state_shardings(shapes, mesh)
    return shardings, abstract_with_shardings(shapes, shardings)


@pytest.mark.devices(8)
def test_other_devices_get_the_same_state(tmp_path):
    """Saved from eight devices, over which it was split; then eight, four, one."""
    over_eight, _ = placed(Mesh(data=1, fsdp=8))
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, jax.device_put(small_state(1), over_eight))
        checkpoints.wait()
        for sizes in (Mesh(1, 8), Mesh(2, 2), Mesh(1, 1)):
            shardings, abstract = placed(sizes)
            _, restored = checkpoints.restore(abstract)
            jax.tree.map(assert_array_equal, restored, small_state(1))
            assert jax.tree.map(lambda leaf: leaf.sharding, restored) == shardings
