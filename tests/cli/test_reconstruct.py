"""`reconstruct`: every picture once, beside its input, or nothing at all."""

import functools

import numpy as np
import pytest
import tiny_run
from etils import epath
from PIL import Image

import taming_jax
from taming_jax import cli, stored
from taming_jax.pretrained import PretrainedVQGAN
from taming_jax.units import from_uint8, to_uint8

LOAD = functools.cache(taming_jax.load_vqgan)  # compiles once for all tests
SIZES = {"a.png": (16, 16), "b.png": (18, 23), "deep/c.png": (16, 16)}  # height, width


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("reconstruct") / "run")


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    monkeypatch.setattr(taming_jax, "load_vqgan", LOAD, raising=False)


@pytest.fixture
def folder(tmp_path):
    """Three pictures of two sizes."""
    for seed, (name, size) in enumerate(SIZES.items()):
        write_picture(tmp_path / "in" / name, size, seed)
    return tmp_path / "in"


def write_picture(path, size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def read(path):
    return np.asarray(Image.open(path))


def reconstruct(workdir, given, output, *flags):
    flags = ["--workdir", workdir, "--input", given, "--output", output, *flags]
    return cli.main(["reconstruct", *map(str, flags)])


def test_a_directory_gives_one_reconstruction_per_picture(workdir, folder, tmp_path):
    assert reconstruct(workdir, folder, tmp_path / "out") == 0
    written = {p.name: read(p).shape for p in (tmp_path / "out").glob("*.png")}
    assert written == {"a.png": (16, 16, 3), "b.png": (16, 20, 3), "c.png": (16, 16, 3)}


def test_it_writes_what_the_tokenizer_gives(workdir, folder, tmp_path):
    reconstruct(workdir, folder / "b.png", tmp_path / "out")
    whole_codes = read(folder / "b.png")[None, :16, :20]
    expected = to_uint8(LOAD(str(workdir)).reconstruct(from_uint8(whole_codes)))
    np.testing.assert_array_equal(read(tmp_path / "out" / "b.png"), expected[0])


@pytest.mark.parametrize(("size", "axis"), [((20, 16), 1), ((16, 20), 0)])
def test_the_pair_has_the_input_left_or_above(workdir, tmp_path, size, axis):
    write_picture(tmp_path / "x.png", size)
    reconstruct(workdir, tmp_path / "x.png", tmp_path / "out")
    both = [read(tmp_path / "x.png"), read(tmp_path / "out" / "x.png")]
    pair = read(tmp_path / "out" / "pairs" / "x.png")
    np.testing.assert_array_equal(pair, np.concatenate(both, axis))


def test_a_list_names_the_pictures(workdir, folder, tmp_path):
    (tmp_path / "list.txt").write_text("in/deep/c.png\nin/a.png\n")
    reconstruct(workdir, tmp_path / "list.txt", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"a.png", "c.png"}


def test_pictures_of_one_name_are_numbered(workdir, folder, tmp_path):
    write_picture(folder / "deep" / "a.png", (16, 16))
    reconstruct(workdir, folder, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == ["0_a.png", "1_b.png", "2_a.png", "3_c.png"]


@pytest.mark.parametrize(
    ("batch_size", "batches"), [(1, [1, 1, 1]), (2, [2, 1]), (9, [2, 1])]
)
def test_pictures_of_one_size_share_batches(
    workdir, folder, tmp_path, monkeypatch, batch_size, batches
):
    seen, encode = [], PretrainedVQGAN.encode
    monkeypatch.setattr(
        PretrainedVQGAN,
        "encode",
        lambda vqgan, images, *tiles: (
            seen.append(len(images)) or encode(vqgan, images, *tiles)
        ),
    )
    reconstruct(workdir, folder, tmp_path / "out", "--batch_size", batch_size)
    assert seen == batches


def test_memory_is_bounded_where_no_two_sizes_agree(monkeypatch):
    from taming_jax.cli import reconstruct as verb

    monkeypatch.setattr(verb, "_MOST_WAITING", 3)
    read_so_far = []

    def pictures():
        for width in range(1, 7):
            read_so_far.append(width)
            yield str(width), np.zeros((4, width, 3), np.uint8)

    batches = verb._batches(pictures(), batch_size=8)
    next(batches)
    assert len(read_so_far) == 3
    assert sorted(name for names, _ in batches for name in names) == list("23456")


def test_tiles_are_those_of_the_flag(workdir, tmp_path):
    """The run's model normalises, so that tiles give another picture than the whole."""
    write_picture(tmp_path / "x.png", (42, 39))
    reconstruct(workdir, tmp_path / "x.png", tmp_path / "out", "--tile", 16)
    whole_codes = from_uint8(read(tmp_path / "x.png")[None, :40, :36])
    vqgan = LOAD(str(workdir))
    expected = [to_uint8(vqgan.reconstruct(whole_codes, n))[0] for n in (16, None)]
    written = read(tmp_path / "out" / "x.png")
    np.testing.assert_array_equal(written, expected[0])
    assert (written != expected[1]).any()


def test_a_tile_that_cannot_be_leaves_nothing_behind(workdir, folder, tmp_path, capsys):
    assert reconstruct(workdir, folder, tmp_path / "out", "--tile", 18) == 2
    assert "tile=18 is no multiple of the 4 pixels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_directory_does_as_well(workdir, folder, tmp_path):
    flags = [
        "--model",
        workdir / "vqgan",
        "--input",
        folder,
        "--output",
        tmp_path / "o",
    ]
    assert cli.main(["reconstruct", *map(str, flags)]) == 0


def test_the_name_of_a_model_does_as_well(
    workdir, folder, tmp_path, monkeypatch, capsys
):
    assets = tmp_path / "assets"
    cli.main(["export", "--workdir", str(workdir), "--output", str(assets / "tiny")])
    monkeypatch.setattr(stored, "ASSETS", epath.Path(assets))
    for name, code in (("tiny", 0), ("medium", 2)):
        flags = ["--model", name, "--input", folder, "--output", tmp_path / name]
        assert cli.main(["reconstruct", *map(str, flags)]) == code
    assert len(list((tmp_path / "tiny").glob("*.png"))) == len(SIZES)
    assert "no model at 'medium'" in capsys.readouterr().err


@pytest.mark.parametrize("there", ["file.txt", "directory/file.txt"])
def test_nothing_is_overwritten(workdir, folder, tmp_path, capsys, there):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    output = tmp_path / there.partition("/")[0]
    assert reconstruct(workdir, folder, output) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / there).read_text() == "mine"


def test_an_empty_directory_is_filled(workdir, folder, tmp_path):
    (tmp_path / "out").mkdir()
    assert reconstruct(workdir, folder, tmp_path / "out") == 0


def test_a_broken_picture_leaves_nothing_behind(workdir, folder, tmp_path, capsys):
    (folder / "z.png").write_bytes((folder / "a.png").read_bytes()[:100])
    before = set(tmp_path.iterdir())
    assert reconstruct(workdir, folder, tmp_path / "out", "--batch_size", 1) == 2
    assert "z.png cannot be read" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_a_picture_smaller_than_a_code_is_named(workdir, tmp_path, capsys):
    write_picture(tmp_path / "dot.png", (3, 16))
    assert reconstruct(workdir, tmp_path / "dot.png", tmp_path / "out") == 2
    assert (
        "dot.png has 3 x 16 pixels and one code covers 4 x 4" in capsys.readouterr().err
    )
