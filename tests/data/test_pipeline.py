import itertools
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from taming_jax.data import BadRecords, Field, eval_batches, open_source, train_batches
from taming_jax.data.order import Order
from taming_jax.data.pipeline import ordered_batches
from taming_jax.data.source import CHANCES, UnreadableError


class Numbered:
    """Pictures of one pixel that show their index, and the draws that came with it."""

    def __init__(self, count, *, broken=(), share=0.05, chunk=1):
        self.class_names, self.identity = (), {"name": "numbered"}
        self.example_spec = {
            "image": Field("uint8", (1, 1, 3)),
            "chance": Field("float32", (3,)),
        }
        self.bad = BadRecords(count, share)
        self.chances, self.chunk, self.one_of = CHANCES, chunk, ()
        self.reads = 0
        self._count, self._broken = count, broken

    def __len__(self):
        return self._count

    def read(self, indices, chances, keep):
        self.reads += 1
        for index in indices:
            if index in self._broken:
                raise UnreadableError(index, f"{index}.jpg", "torn")
        if chances is None:
            chances = np.zeros((len(indices), 3), np.float32)
        image = np.zeros((len(indices), 1, 1, 3), np.uint8)
        image += indices[:, None, None, None].astype(np.uint8)
        whole = {"image": image, "chance": chances}
        return {name: whole[name] for name in keep}


def batches(source, number, **settings):
    usual = {"batch_size": 6, "seed": 3, "keep": ("image", "index", "chance")}
    return list(itertools.islice(train_batches(source, **usual | settings), number))


def joined(batches, key):
    return np.concatenate([batch[key] for batch in batches])


@pytest.mark.parametrize("count", [1, 2, 3, 10, 255, 256, 257, 20_000])
def test_each_epoch_shows_every_index_once(count):
    shown = Order(count, seed=7)(np.arange(2 * count)).reshape(2, count)
    np.testing.assert_array_equal(np.sort(shown), [np.arange(count)] * 2)


def test_every_index_is_equally_likely_at_every_place():
    """Chi-squared over 99 x 99 cells has mean 9801 and deviation 140: 5 deviations."""
    epochs, count = 2_000, 100
    shown = Order(count, seed=0)(np.arange(epochs * count)).reshape(epochs, count)
    table = np.stack([np.bincount(place, minlength=count) for place in shown.T])
    expected = epochs / count
    assert abs(((table - expected) ** 2 / expected).sum() - 99 * 99) < 5 * 140


def test_neighbours_in_the_order_are_unrelated():
    """A correlation of n independent pairs deviates by 1/sqrt(n): 4 deviations."""
    shown = Order(100_000, seed=0)(np.arange(100_000))
    assert abs(np.corrcoef(shown[:-1], shown[1:])[0, 1]) < 4 / np.sqrt(100_000)


def test_chances_are_uniform_and_new_in_each_epoch():
    chances = joined(batches(Numbered(10), 500), "chance")
    histogram = np.histogram(chances, bins=10, range=(0, 1))[0] / chances.size
    np.testing.assert_allclose(histogram, 0.1, atol=0.016)  # 5 deviations
    assert len(np.unique(chances, axis=0)) == len(chances)


def test_another_seed_is_another_order():
    positions = np.arange(100)
    assert (Order(100, seed=0)(positions) != Order(100, seed=1)(positions)).any()


def test_starting_at_a_step_equals_having_read_up_to_it():
    whole, resumed = batches(Numbered(10), 9), batches(Numbered(10), 4, start_step=5)
    for key in ("image", "index", "chance"):
        np.testing.assert_array_equal(joined(resumed, key), joined(whole[5:], key))


@pytest.mark.parametrize("chunk", [2, 3, 6, 8])
def test_reading_several_at_once_changes_nothing(chunk):
    alone, together = batches(Numbered(10), 5), batches(Numbered(10, chunk=chunk), 5)
    for key in ("image", "index", "chance"):
        np.testing.assert_array_equal(joined(together, key), joined(alone, key))


def test_processes_share_the_batch_that_one_reads_alone():
    alone = batches(Numbered(10), 5)
    shares = [
        batches(Numbered(10), 5, process_index=k, process_count=3) for k in range(3)
    ]
    for step, batch in enumerate(alone):
        together = [share[step]["index"] for share in shares]
        np.testing.assert_array_equal(np.concatenate(together), batch["index"])


def test_a_bad_picture_is_replaced_by_its_successor_and_nothing_else_moves():
    bad = 4
    clean = joined(batches(Numbered(10), 5), "index")
    mended = joined(batches(Numbered(10, broken={bad}), 5), "index")
    positions = np.arange(30)
    successors = Order(10, seed=3)(positions, shift=1)
    np.testing.assert_array_equal(mended, np.where(clean == bad, successors, clean))


def test_a_bad_picture_is_named_once_and_counted(caplog):
    source = Numbered(10, broken={4})
    with caplog.at_level(logging.WARNING):
        batches(source, 10)
    assert [r.getMessage() for r in caplog.records if "4.jpg: torn" in r.getMessage()]
    assert len(caplog.records) == len(source.bad) == 1


def test_too_many_bad_pictures_stop_the_run():
    with pytest.raises(
        ValueError, match=r"3 of 10 pictures .* 2 are forgiven .* raise"
    ):
        batches(Numbered(10, broken={1, 2, 3, 4}, share=0.2), 10)


def test_a_share_of_zero_forgives_nothing():
    with pytest.raises(ValueError, match="1 of 10 pictures cannot be read"):
        batches(Numbered(10, broken={1}, share=0), 10)


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match=r"max_bad_share is 5; it is a share in"):
        BadRecords(10, 5)


def test_a_source_without_one_good_picture_stops_the_run():
    with pytest.raises(ValueError, match="10 of 10 pictures cannot be read"):
        batches(Numbered(10, broken=set(range(10)), share=1), 1)


def test_early_bad_pictures_count_as_a_share_of_a_thousand():
    ledger = BadRecords(1_000_000, 0.01)
    for index in range(10):
        ledger.add(UnreadableError(index, "a.jpg", "torn"))
    ledger.check()
    ledger.add(UnreadableError(10, "a.jpg", "torn"))
    with pytest.raises(ValueError, match="11 of 1000000"):
        ledger.check()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_shows_each_example_once_over_all_processes(processes):
    shares = [
        list(
            eval_batches(
                Numbered(20), batch_size=6, process_index=k, process_count=processes
            )
        )
        for k in range(processes)
    ]
    assert {len(share) for share in shares} == {4}
    masks, indices = (
        joined(itertools.chain(*shares), key) for key in ("mask", "index")
    )
    np.testing.assert_array_equal(np.sort(indices[masks]), np.arange(20))
    np.testing.assert_array_equal(indices[~masks], -1)


def test_evaluation_masks_a_bad_picture():
    read = list(eval_batches(Numbered(10, broken={4}), batch_size=5))
    seen = np.sort(joined(read, "index")[joined(read, "mask")])
    np.testing.assert_array_equal(seen, [0, 1, 2, 3, 5, 6, 7, 8, 9])


def test_evaluation_reads_without_chance_and_no_more_than_asked_for():
    read = list(eval_batches(Numbered(10), batch_size=4, count=6, keep=["chance"]))
    assert [batch["mask"].sum() for batch in read] == [4, 2]
    assert not joined(read, "chance").any()


@pytest.mark.parametrize(("batch_size", "chunk"), [(1, 1), (4, 1), (4, 3), (50, 8)])
def test_in_order_each_example_comes_once_under_each_view(batch_size, chunk):
    views = np.float32([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]])
    read = ordered_batches(
        Numbered(10, broken={4}, share=1.0, chunk=chunk),
        batch_size=batch_size,
        views=views,
        keep=("index", "chance"),
    )
    read = list(read)
    assert {len(batch["mask"]) for batch in read} == {batch_size}
    index, mask = joined(read, "index"), joined(read, "mask")
    sound = np.repeat([i for i in range(10) if i != 4], 3)
    np.testing.assert_array_equal(index[mask], sound)
    np.testing.assert_array_equal(np.flatnonzero(~mask)[:3], [12, 13, 14])
    np.testing.assert_array_equal(joined(read, "chance")[mask], np.tile(views, (9, 1)))


def test_in_order_without_views_nothing_is_left_to_chance():
    (batch,) = ordered_batches(Numbered(5), batch_size=8, keep=("index", "chance"))
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert not batch["chance"].any()


def test_few_batches_are_read_ahead():
    source = Numbered(1_000)
    iterator = train_batches(source, batch_size=6, seed=0)
    next(iterator)
    time.sleep(0.5)  # however long the consumer takes
    assert source.reads <= 6 * 6


def test_batches_stay_uint8():
    assert batches(Numbered(10), 1)[0]["image"].dtype == np.uint8


@pytest.mark.parametrize("batch_size", [0, 5])
def test_a_batch_that_processes_cannot_share_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch size is {batch_size}; 2 processes"):
        train_batches(Numbered(10), batch_size=batch_size, seed=0, process_count=2)


def test_a_batch_larger_than_the_source_is_refused():
    with pytest.raises(ValueError, match="batch size is 11 and there are 10 pictures"):
        train_batches(Numbered(10), batch_size=11, seed=0)


def test_a_field_that_the_source_lacks_is_refused():
    with pytest.raises(ValueError, match="asked for label; this data set has image"):
        train_batches(Numbered(10), batch_size=2, seed=0, keep=["image", "label"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "shape"}, "data.name is 'shape'; there are shapes, scenes"),
        ({"vall": 3}, "data.vall is not a key .* did you mean data.val?"),
        ({"image_size": 0}, "data.image_size is 0; .* positive integer"),
        ({"train": 0}, "data.train is 0; .* a positive integer"),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(change, message):
    data = {"name": "shapes", "train": 8, "val": 8, "image_size": 16} | change
    with pytest.raises(ValueError, match=message):
        open_source(data, "train")


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"data\.val is missing; 'shapes' needs train"):
        open_source({"name": "shapes", "train": 8, "image_size": 16}, "train")


def test_the_package_imports_without_tensorflow():
    code = "import sys; sys.modules['tensorflow'] = None; import taming_jax.data"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_ends_while_pictures_are_being_read():
    """A reader is in the midst of its work when the program has nothing more to do."""
    code = """
import time
import test_pipeline, taming_jax.data
class Slow(test_pipeline.Numbered):
    def read(self, *arguments):
        time.sleep(0.5)
        return super().read(*arguments)
batches = taming_jax.data.train_batches(Slow(10), batch_size=2, seed=0)
next(batches)
"""
    here = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(here)}
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, timeout=200, env=environment)
