import shutil

import numpy as np
import pytest
from PIL import Image

from taming_jax.data import eval_batches, list_images, open_source, train_batches


def paint(path, level, size=(20, 16)):
    """Writes a picture of one grey level, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)
    return path


@pytest.fixture
def animals(tmp_path):
    """Three cats of levels 0, 10, 20 and three dogs of 30, 40, 50."""
    root = tmp_path / "animals"
    names = ["cat/a.png", "cat/b.png", "cat/old/c.png", "dog/a.png", "dog/b.PNG"]
    for number, name in enumerate([*names, "dog/c.webp"]):
        paint(root / name, 10 * number)
    return root


def folder(split="train", **settings):
    data = {"name": "folder", "image_size": 8} | settings
    return open_source(data, split)


def everything(source, *keep):
    """All examples, by index: one array for each name in `keep`."""
    (batch,) = eval_batches(source, batch_size=len(source), keep=("index", *keep))
    rows = np.argsort(batch["index"])
    return [batch[name][rows] for name in keep]


def levels(source):
    (images,) = everything(source, "image")
    return images[:, 0, 0, 0].tolist()


def test_sub_directories_are_classes_however_deep_their_pictures_lie(animals):
    source = folder(train=animals, val=animals)
    images, labels = everything(source, "image", "label")
    assert source.class_names == ("cat", "dog")
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]


def test_images_are_squares_of_the_size_asked_for(animals):
    source = folder(train=animals, val=animals, image_size=12)
    batch = next(train_batches(source, batch_size=2, seed=0))
    assert batch["image"].shape == (2, 12, 12, 3)


def test_pictures_beside_sub_directories_take_the_labels_away(animals):
    paint(animals / "stray.png", 99)
    source = folder(train=animals, val=animals)
    assert (len(source), source.class_names) == (7, ())
    with pytest.raises(ValueError, match=r"asked for label; .* sub-directories"):
        eval_batches(source, batch_size=1, keep=["label"])


def test_hidden_files_and_others_are_not_looked_at(animals):
    paint(animals / "cat" / "._a.png", 99)
    paint(animals / ".trash" / "a.png", 99)
    (animals / "cat" / "notes.txt").write_text("whiskers")
    assert len(folder(train=animals, val=animals)) == 6


def test_linked_directories_are_followed(animals, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "felines").symlink_to(animals / "cat")
    source = folder(train=tmp_path / "links", val=animals)
    assert (len(source), source.class_names) == (3, ("felines",))


def test_labels_of_val_are_those_of_train(animals, tmp_path):
    shutil.copytree(animals / "dog", tmp_path / "val" / "dog")
    source = folder("val", train=animals, val=tmp_path / "val")
    assert everything(source, "label")[0].tolist() == [1, 1, 1]
    assert source.class_names == ("cat", "dog")


def test_classes_that_train_lacks_leave_val_without_labels(animals, tmp_path):
    shutil.copytree(animals / "dog", tmp_path / "val" / "wolf")
    assert folder("val", train=animals, val=tmp_path / "val").class_names == ()


def test_a_list_names_files_relative_to_itself_or_absolutely(animals):
    lines = ["cat/b.png", "", "./dog/a.png", str(animals / "cat" / "a.png")]
    (animals / "some.txt").write_text("\r\n".join(lines))
    source = folder(train=animals / "some.txt", val=animals)
    assert levels(source) == [0, 10, 30]
    assert source.class_names == ()


@pytest.mark.parametrize("share", [None, 0.05, 0.3, "0.3"])
def test_the_held_out_share_and_the_rest_are_all_pictures_once(tmp_path, share):
    for number in range(20):
        paint(tmp_path / f"{number}.png", number)
    train, val = (
        levels(folder(split, train=tmp_path, val=share)) for split in ("train", "val")
    )
    assert len(val) == round(20 * float(share or 0.05))
    assert sorted(train + val) == list(range(20))


def test_what_is_held_out_stays_so_when_pictures_are_added(tmp_path):
    for number in range(20):
        paint(tmp_path / f"{number}.png", number)
    before = levels(folder("val", train=tmp_path, val=0.2))
    for number in range(20, 25):
        paint(tmp_path / f"{number}.png", number)
    after = levels(folder("val", train=tmp_path, val=0.2))
    assert len(after) == 5
    assert len(set(before) & set(after)) >= 3


def test_a_folder_is_the_same_data_wherever_it_lies(animals, tmp_path):
    before = folder(train=animals, val=animals).identity
    animals.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert folder(train=moved, val=moved).identity == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cat/a.png").rename(root / "cat/z.png"),
        lambda root: (root / "cat/a.png").unlink(),
        lambda root: paint(root / "cat/a.png", 0, size=(300, 300)),
    ],
    ids=["renamed", "removed", "replaced"],
)
def test_other_pictures_are_other_data(animals, change):
    before = folder(train=animals, val=animals).identity
    change(animals)
    assert folder(train=animals, val=animals).identity != before


def test_training_crops_and_flips_and_evaluation_does_neither(tmp_path):
    """One picture, black to white from left to right, twice as wide as high."""
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (16, 1))
    for name in ("a.png", "b.png"):
        Image.fromarray(ramp).save(tmp_path / name)
    source = folder(train=tmp_path, val=tmp_path, image_size=16)
    images = train_batches(source, batch_size=2, seed=0)
    rows = np.stack([next(images)["image"][0, 0, :, 0].astype(int) for _ in range(40)])
    rising = rows[:, -1] > rows[:, 0]
    assert 8 <= rising.sum() <= 32  # out of 40; outside once in 10,000 seeds
    assert len(np.unique(rows[rising, 0])) >= 5
    centre = ramp[0, 8:24].tolist()
    assert everything(source, "image")[0][0, 0, :, 0].tolist() == centre


def test_a_zoom_moves_crops_of_square_pictures_and_leaves_evaluation_alone(tmp_path):
    ramp = np.tile(np.arange(20, dtype=np.uint8), (20, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    settings = {"image_size": 10, "flip": False, "zoom": 2.0}
    source = folder(train=tmp_path, val=tmp_path, **settings)
    batches = train_batches(source, batch_size=1, seed=0)
    lefts = {int(next(batches)["image"][0, 0, 0, 0]) for _ in range(60)}
    assert lefts == set(range(11))  # one of eleven is missing once in 28 seeds
    whole = folder(train=tmp_path, val=tmp_path, image_size=10)
    assert (
        everything(source, "image")[0].tobytes()
        == everything(whole, "image")[0].tobytes()
    )


@pytest.mark.parametrize(
    ("settings", "chances"),
    [
        ({}, ("across", "down", "mirror")),
        ({"flip": False}, ("across", "down")),
        ({"crop": "center"}, ("mirror",)),
        ({"crop": "center", "flip": False}, ()),
    ],
)
def test_a_folder_says_what_it_leaves_to_chance(animals, settings, chances):
    assert folder(train=animals, val=animals, **settings).chances == chances


def test_augmentation_can_be_turned_off(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    still = {"crop": "center", "flip": False, "image_size": 16}
    source = folder(train=tmp_path, val=tmp_path, **still)
    batches = train_batches(source, batch_size=1, seed=0)
    seen = {next(batches)["image"].tobytes() for _ in range(10)}
    assert seen == {everything(source, "image")[0].tobytes()}


def test_a_torn_or_missing_picture_is_replaced_and_counted(animals, caplog):
    content = (animals / "cat/a.png").read_bytes()
    (animals / "cat/a.png").write_bytes(content[:40])
    source = folder(train=animals, val=animals, max_bad_share=0.5)
    (animals / "dog/a.png").unlink()
    batches = train_batches(source, batch_size=6, seed=0)
    shown = np.concatenate([next(batches)["index"] for _ in range(5)])
    assert set(shown.tolist()) == {1, 2, 4, 5}
    assert len(source.bad) == 2
    assert "cat/a.png" in caplog.text
    assert "dog/a.png: No such file or directory" in caplog.text


def test_list_images_reads_files_directories_and_lists(animals):
    (animals / "some.txt").write_text("dog/b.PNG\ncat/a.png")
    cat = animals / "cat"
    assert list_images(cat / "a.png") == [cat / "a.png"]
    assert list_images(cat) == [cat / "a.png", cat / "b.png", cat / "old" / "c.png"]
    assert list_images(animals / "some.txt") == [cat / "a.png", animals / "dog/b.PNG"]


def test_a_missing_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.train is '.*none', which does not ex"):
        folder(train=tmp_path / "none")


def test_no_path_at_all_is_refused():
    with pytest.raises(ValueError, match=r"data\.train is None; it is a directory"):
        folder(train=None)


def test_a_directory_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no pictures; .* \.jpg, \.jpeg, \.png"):
        folder(train=tmp_path)


def test_an_unreadable_val_is_refused(animals):
    with pytest.raises(ValueError, match=r"data\.val is '.*cat/a\.png', which is neit"):
        folder("val", train=animals, val=animals / "cat/a.png")


def test_missing_files_of_a_list_are_counted_and_the_first_named(animals):
    lines = ["cat/a.png", *(f"cat/lost{n}.png" for n in range(5)), "cow/a.png"]
    (animals / "some.txt").write_text("\n".join(lines))
    message = r"of whose 7 files 6 are missing: .*lost0\.png, .*lost1.*lost2.*, \.\.\."
    with pytest.raises(ValueError, match=message):
        folder(train=animals / "some.txt")


@pytest.mark.parametrize("share", [0.0, 1.0, 5.0])
def test_a_share_that_is_none_is_refused(animals, share):
    with pytest.raises(ValueError, match=rf"data\.val is {share} of 6 pictures"):
        folder(train=animals, val=share)


def test_fewer_pictures_than_a_batch_are_refused(animals):
    with pytest.raises(ValueError, match="batch size is 8 and there are 6 pictures"):
        train_batches(folder(train=animals, val=animals), batch_size=8, seed=0)


@pytest.mark.parametrize("settings", [{"zoom": 0.5}, {"zoom": 1.1, "crop": "center"}])
def test_a_zoom_that_moves_nothing_is_refused(animals, settings):
    with pytest.raises(ValueError, match=r"data\.zoom is .*a zoom of 1 or more says"):
        folder(train=animals, val=animals, **settings)


def test_an_unknown_crop_is_refused(animals):
    with pytest.raises(ValueError, match=r"data\.crop is 'middle'; there are random"):
        folder(train=animals, crop="middle")
