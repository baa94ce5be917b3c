import numpy as np
import pytest

from taming_jax.data import eval_batches, open_source, train_batches


def embedded(split="train", name="shapes", **settings):
    data = {"name": name, "train": 40, "val": 20, "image_size": 16}
    return open_source(data | settings, split)


@pytest.mark.parametrize("name", ["shapes", "scenes"])
def test_every_field_has_the_shape_and_type_that_its_source_states(name):
    source = embedded(name=name)
    (batch,) = eval_batches(source, batch_size=40, keep=tuple(source.example_spec))
    for key, (dtype, shape) in source.example_spec.items():
        assert (batch[key].dtype, batch[key].shape) == (dtype, (40, *shape))


def test_a_picture_belongs_to_its_index():
    source = embedded()
    batch = next(train_batches(source, batch_size=5, seed=0))
    alone = [source.read(np.array([i]), None, ("image",)) for i in batch["index"]]
    expected = np.concatenate([picture["image"] for picture in alone])
    np.testing.assert_array_equal(batch["image"], expected)


def test_training_and_validation_share_no_picture():
    pictures = {
        split: {
            image.tobytes()
            for batch in eval_batches(embedded(split, train=20), batch_size=20)
            for image in batch["image"]
        }
        for split in ("train", "val")
    }
    assert len(pictures["train"] | pictures["val"]) == 40


def test_identity_tells_splits_and_counts_apart_but_not_sizes():
    identity = embedded().identity
    assert embedded(image_size=32).identity == identity
    others = [embedded("val"), embedded(train=41), embedded(name="scenes")]
    assert all(other.identity != identity for other in others)
