"""`sample` of many pictures: drawn anywhere, packed row by row, continued."""

import re
import shutil
import signal
import time
import tracemalloc

import jax
import numpy as np
import pytest
import several
import tiny_run
from PIL import Image

from taming_jax import cli, load_prior, pictures
from taming_jax.cli import sample_grid, samples
from taming_jax.cli.devices import own_mesh


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_prior(tiny_run.write_run(tmp_path_factory.mktemp("samples")))


def sample(workdir, output, *flags):
    flags = ["--workdir", workdir, "--output", output, *flags]
    return cli.main(["sample", *map(str, flags)])


@pytest.mark.devices(8)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_sample_is_the_same_alone_in_seven_and_on_eight_devices(tmp_path, guidance):
    workdir = tiny_run.write_prior(tiny_run.write_run(tmp_path / "run"))
    labels, key = np.arange(16) % 10, jax.random.key(3)
    prior, spread = load_prior(workdir), load_prior(workdir, mesh=own_mesh())
    on_eight = spread.sample(key, labels, guidance=guidance)
    assert len(on_eight.addressable_shards) == 8
    assert on_eight.addressable_shards[0].data.shape == (2, 4, 4)
    seven = prior.sample(key, labels[:7], guidance=guidance)
    np.testing.assert_array_equal(on_eight[:7], seven)
    alone = jax.random.fold_in(key, 11)[None]
    np.testing.assert_array_equal(
        on_eight[11:12], prior.sample(alone, labels[11:12], guidance=guidance)
    )


@pytest.mark.devices(8)
@pytest.mark.parametrize("stride", [1, 2])
def test_larger_samples_are_the_same_alone_and_on_eight_devices(tmp_path, stride):
    workdir = tiny_run.write_prior(tiny_run.write_run(tmp_path / "run"))
    labels, key = np.arange(8), jax.random.key(3)
    asked = {"shape": (5, 6), "window_stride": stride, "guidance": 2.0}
    spread = load_prior(workdir, mesh=own_mesh())
    on_eight = spread.sample(key, labels, **asked)
    alone = jax.random.fold_in(key, 5)[None]
    np.testing.assert_array_equal(
        on_eight[5:6], load_prior(workdir).sample(alone, labels[5:6], **asked)
    )


@pytest.mark.devices(8)
def test_the_files_of_eight_devices_are_those_of_one(tmp_path, monkeypatch):
    """Five pictures in batches of three, which become eight."""
    workdir = tiny_run.write_prior(tiny_run.write_run(tmp_path / "run"))
    flags = ["--classes", "4", "--count", 5, "--batch_size", 3]
    assert sample(workdir, tmp_path / "eight", *flags) == 0
    monkeypatch.setattr("taming_jax.cli.devices.own_mesh", lambda: None)
    monkeypatch.setattr("taming_jax.cli.devices.batch_over", lambda batch: batch)
    assert sample(workdir, tmp_path / "one", *flags) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "eight" / path.name).read_bytes()


@pytest.fixture(scope="module")
def three(workdir, tmp_path_factory):
    """Three pictures of one class."""
    output = tmp_path_factory.mktemp("three") / "out"
    assert sample(workdir, output, "--classes", 4, "--count", 3) == 0
    return output


def test_more_of_one_class_go_on_where_it_was(workdir, three, tmp_path):
    grown, new = tmp_path / "grown", tmp_path / "new"
    shutil.copytree(three, grown)
    flags = ["--classes", 4, "--count", 5, "--batch_size", 1]
    assert sample(workdir, grown, *flags) == sample(workdir, new, *flags) == 0
    for i in range(3):
        assert samples.path_of(grown, i).stat().st_mtime_ns == (
            samples.path_of(three, i).stat().st_mtime_ns
        )
    assert {path.name: path.read_bytes() for path in grown.iterdir()} == {
        path.name: path.read_bytes() for path in new.iterdir()
    }


def test_what_was_made_of_fewer_is_gone_before_there_are_more(
    workdir, three, tmp_path, monkeypatch
):
    """An interruption leaves no samples.npz that is not of all pictures."""
    shutil.copytree(three, tmp_path / "out")
    monkeypatch.setattr(samples, "put_together", killed)
    with pytest.raises(KeyboardInterrupt):
        sample(workdir, tmp_path / "out", "--classes", 4, "--count", 4)
    assert names(tmp_path / "out") == [*PNGS[:4], "request.json"]


PNGS = [f"{i:05}.png" for i in range(9)]


def killed(*arguments, **named):
    raise KeyboardInterrupt


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--classes", "4", "--count", 2], r"count=3, now count=2\)"),
        (["--classes", "5", "--count", 5], r"labels=\[4\], now labels=\[5\]"),
    ],
)
def test_fewer_or_others_do_not_go_on(workdir, three, capsys, flags, message):
    before = names(three)
    assert sample(workdir, three, *flags) == 2
    assert re.search(message, capsys.readouterr().err)
    assert names(three) == before


def test_more_of_several_classes_would_have_other_numbers(workdir, tmp_path, capsys):
    flags = ["--classes", "4,5", "--count"]
    assert sample(workdir, tmp_path / "out", *flags, 1) == 0
    assert sample(workdir, tmp_path / "out", *flags, 2) == 2
    said = capsys.readouterr().err
    assert "count=1, now count=2, which gives the pictures other numbers" in said


def test_a_full_disk_leaves_whole_pictures_and_the_same_command_goes_on(
    workdir, three, tmp_path, monkeypatch, capsys
):
    write, left = pictures.write_png, [2]

    def write_until_full(path, picture):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(path, picture)

    monkeypatch.setattr(pictures, "write_png", write_until_full)
    flags = ["--classes", 4, "--count", 3, "--batch_size", 1]
    assert sample(workdir, tmp_path / "out", *flags) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert names(tmp_path / "out") == [*PNGS[:2], "request.json"]
    monkeypatch.undo()
    assert sample(workdir, tmp_path / "out", *flags) == 0
    assert (tmp_path / "out" / "00002.png").read_bytes() == (
        three / "00002.png"
    ).read_bytes()


@pytest.mark.slow
def test_a_process_that_is_killed_is_gone_on_with(workdir, tmp_path):
    """By another; the files are those that one would have written."""
    flags = ["--classes=4", "--count=400", "--batch_size=2"]
    command = ["sample", f"--workdir={workdir}", f"--output={tmp_path / 'out'}"]
    with several.started(1, [[*command, *flags]]) as run:
        deadline = time.monotonic() + several.SECONDS
        while not samples.path_of(tmp_path / "out", 5).exists():
            assert run.processes[0].poll() is None, run.said
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.processes[0].kill()
        assert run.finish() == [-signal.SIGKILL]
    assert "samples.npz" not in names(tmp_path / "out")
    begun = samples.path_of(tmp_path / "out", 0).stat().st_mtime_ns
    assert sample(workdir, tmp_path / "out", *flags) == 0
    assert samples.path_of(tmp_path / "out", 0).stat().st_mtime_ns == begun
    assert sample(workdir, tmp_path / "one", *flags) == 0
    assert names(tmp_path / "out") == names(tmp_path / "one")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_a_picture_of_another_size_is_named(workdir, three, tmp_path, capsys):
    shutil.copytree(three, tmp_path / "out")
    pictures.write_png(tmp_path / "out" / "00001.png", np.zeros((8, 8, 3), np.uint8))
    assert sample(workdir, tmp_path / "out", "--classes", 4, "--count", 3) == 2
    assert "00001.png is (8, 8, 3) and the first" in capsys.readouterr().err
    assert "samples.npz" in names(tmp_path / "out")  # as it was
    assert ".samples.npz.part" not in names(tmp_path / "out")


def test_rows_are_packed_one_at_a_time(tmp_path):
    """25 MB in a file, of which memory never holds a tenth."""

    def rows():
        for i in range(2_000):
            yield np.full((64, 64, 3), i % 251, np.uint8)

    labels = np.arange(2_000, dtype=np.int32)
    tracemalloc.start()
    with (tmp_path / "packed.npz").open("wb") as file:
        samples.pack(file, rows(), 2_000, {"labels": labels})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    with np.load(tmp_path / "packed.npz") as packed:
        assert packed.files == ["arr_0", "labels"]
        np.testing.assert_array_equal(packed["arr_0"], np.stack(list(rows())))
        np.testing.assert_array_equal(packed["labels"], labels)


def test_what_is_missing_is_found_by_one_look(tmp_path, monkeypatch):
    """Of 50,000 pictures two are gone; each takes its batch with it."""
    gone = {8, 49_999}
    looks = []

    def listed(directory):
        looks.append(directory)
        return (samples.path_of(directory, i) for i in range(50_000) if i not in gone)

    monkeypatch.setattr(type(tmp_path), "iterdir", listed)
    assert samples.unfinished(tmp_path, 50_000, 7) == ([7, 49_994], 7 + 6)
    assert looks == [tmp_path]


@pytest.mark.parametrize(
    ("total", "count", "size", "beside", "shape"),
    [
        (6, 3, 16, 0, (2, 3)),  # a row for each class
        (10, 1, 16, 0, (1, 10)),  # a column, where there are more classes than that
        (50_000, 50, 256, 0, (15, 15)),  # 4,096 pixels are full
        (50_000, 50, 256, 1, (15, 14)),
        (50_000, 50_000, 256, 0, (15, 15)),  # one class alone: over several rows
        (4, 4, 5_000, 0, (1, 1)),  # larger than the grid
    ],
)
def test_the_grid_shows_what_fits(total, count, size, beside, shape):
    rows = sample_grid.rows(total, count, (size, size), beside)
    assert (len(rows), len(rows[0])) == shape
    assert rows[0][0] == 0


def test_a_single_class_ends_with_a_shorter_row(monkeypatch, tmp_path):
    monkeypatch.setattr(sample_grid, "SIDE", 60)
    assert [list(row) for row in sample_grid.rows(5, 5, (18, 18))] == [
        [0, 1, 2],
        [3, 4],
    ]
    paths = [tmp_path / name for name in PNGS[:5]]
    for path in paths:
        pictures.write_png(path, np.zeros((18, 18, 3), np.uint8))
    shown = sample_grid.write_grid(tmp_path / "g.png", paths, 5, [], [])
    with Image.open(tmp_path / "g.png") as grid:
        assert (shown, grid.size) == (5, (3 * 20 - 2, 2 * 20 - 2))


def test_a_square_beside_a_wide_picture_is_stretched_over_its_form(tmp_path):
    """Boxes that are drawn in a square lie where they should, relative to it."""
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path in paths:
        pictures.write_png(path, np.zeros((4, 8, 3), np.uint8))
    square = np.zeros((1, 8, 8, 3), np.uint8)
    square[:, 2:4, 6:] = 200
    sample_grid.write_grid(tmp_path / "g.png", paths, 2, [], [square])
    shown = pictures.read_png(tmp_path / "g.png")[:, :8, 0]
    expected = np.zeros((4, 8))
    expected[1:2, 6:] = 200
    np.testing.assert_array_equal(shown, expected)
