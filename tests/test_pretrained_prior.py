"""load_prior: what it promises of samples, and what it says of what cannot be."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from jax.sharding import AbstractMesh
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import load_prior, load_vqgan
from taming_jax.data.shapes import CLASSES
from taming_jax.orders import make_order

KEY = jax.random.key(0)
LABELS = np.array([3, 0, 9])
UNCONDITIONAL = {
    **tiny_run.PRIOR,
    "condition": "none",
    "label_dropout": 0.0,
    "sampling": {},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_prior(tiny_run.write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def prior(workdir):
    return load_prior(workdir)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    run = tiny_run.write_run(tmp_path_factory.mktemp("unconditional"))
    return load_prior(tiny_run.write_prior(run, UNCONDITIONAL, class_names=()))


def test_it_brings_its_tokenizer_along(prior):
    assert prior.vqgan.codebook_size == tiny_run.CODEBOOK_SIZE
    assert prior.condition_vqgan is None
    assert prior.class_names == CLASSES


def test_each_picture_s_codes_have_a_condition(prior):
    with pytest.raises(ValueError, match="codes of 2 pictures and a condition of 3"):
        prior.logits(np.zeros((2, 4, 4), np.int32), LABELS)


def test_samples_are_grids_of_codes(prior):
    codes = prior.sample(KEY, LABELS)
    assert codes.shape == (3, 4, 4)
    assert codes.dtype == np.int32
    assert 0 <= codes.min() <= codes.max() < tiny_run.CODEBOOK_SIZE


def test_pictures_are_the_samples_decoded(prior):
    codes = prior.sample(KEY, LABELS, top_k=3)
    images = prior.generate(KEY, LABELS, top_k=3)
    assert_array_equal(images, prior.vqgan.decode(codes))


def test_a_sample_does_not_depend_on_the_others(prior):
    """Sample i draws with fold_in(key, i), in whatever batch."""
    alone = prior.sample(jax.random.fold_in(KEY, 2)[None], LABELS[2:])
    assert_array_equal(prior.sample(KEY, LABELS)[2:], alone)


def test_an_unconditional_prior_is_told_how_many(unconditional):
    assert unconditional.sample(KEY, batch=2).shape == (2, 4, 4)


def test_given_codes_stay(prior):
    given = np.full((3, 4, 4), -1)
    given[:, 0] = [1, 2, 3, 4]
    codes = prior.sample(KEY, LABELS, given=given)
    assert_array_equal(codes[:, 0], given[:, 0])


def test_logits_are_those_that_samples_are_drawn_by(prior):
    """Greedy codes are the likeliest of the teacher-forced logits, place by place."""
    codes = prior.sample(KEY, LABELS, greedy=True)
    logits = prior.logits(codes, LABELS)[..., : tiny_run.CODEBOOK_SIZE]
    assert_array_equal(logits.argmax(-1), codes.reshape(3, -1))


def test_logits_are_of_the_whole_vocabulary(prior):
    codes = np.zeros((3, 4, 4), np.int32)
    expected = (3, 16, tiny_run.CODEBOOK_SIZE + len(CLASSES) + 1)
    assert prior.logits(codes, LABELS).shape == expected


@pytest.fixture(scope="module")
def spiral(tmp_path_factory):
    """The same weights for codes that are read in a spiral."""
    run = tiny_run.write_run(tmp_path_factory.mktemp("spiral"))
    section = {**tiny_run.PRIOR, "order": "spiral_in"}
    return load_prior(tiny_run.write_prior(run, section))


def test_logits_are_in_the_order_of_tokens(prior, spiral):
    assert_array_equal(spiral.order, make_order("spiral_in", (4, 4)))
    codes = np.arange(48).reshape(3, 4, 4) % 16
    unrolled = codes.reshape(3, -1)[:, spiral.order].reshape(3, 4, 4)
    expected = prior.logits(unrolled, LABELS)
    assert_array_equal(spiral.logits(codes, LABELS), expected)


def test_codes_are_drawn_and_given_where_they_belong(prior, spiral):
    given = np.full((3, 4, 4), -1)
    given[:, 3, 3] = given[:, 2, 3] = [5, 6, 7]  # the first two of the spiral
    codes = spiral.sample(KEY, LABELS, given=given)
    first = np.full((3, 4, 4), -1)
    first[:, 0, :2] = given[:, 2:, 3]
    expected = prior.sample(KEY, LABELS, given=first).reshape(3, -1)
    assert_array_equal(codes.reshape(3, -1)[:, spiral.order], expected)


def test_another_grid_is_drawn_with_positions_between_those_that_were_learned(workdir):
    prior = load_prior(workdir, grid=(6, 5))
    assert prior.grid == (6, 5)
    assert prior.generate(KEY, LABELS).shape == (3, 24, 20, 3)


@pytest.mark.parametrize("schedule", ["linear", "power-cosine"])
def test_guidance_grows_from_none_to_all_of_it(prior, schedule):
    codes = prior.sample(KEY, LABELS, guidance=4.0, guidance_schedule=schedule)
    without = prior.sample(KEY, LABELS, guidance=1.0)
    assert_array_equal(codes[:, 0, 0], without[:, 0, 0])


def test_half_precision_gives_nearly_the_same_logits(workdir, prior):
    codes = np.zeros((3, 4, 4), np.int32)
    exact = prior.logits(codes, LABELS)
    rounded = load_prior(workdir, dtype="bfloat16").logits(codes, LABELS)
    # bfloat16 keeps 8 bits: 2^-8 of logits below 1, over two layers.
    assert_allclose(rounded, exact, atol=2**-6)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"condition": [10]}, r"from 10 to 10.*0 to 9: 0 disc"),
        ({"condition": [-1]}, r"from -1"),
        ({"condition": [0.5]}, r"float64.*int32 \[B\]"),
        ({"condition": None, "batch": 2}, r"10 classes.*was not told"),
        ({"shape": (0, 4)}, r"shape=\(0, 4\).*each at least 1"),
        ({"guidance_schedule": "steep"}, r"'steep'.*constant, linear, power-cosine"),
        ({"batch": 2}, r"batch 2, condition 1"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 2.5}, "top_k=2.5: a whole number"),
        ({"top_k": "9"}, "top_k='9': a whole number"),
        ({"top_p": "all"}, "top_p='all': a probability"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": np.nan}, "temperature=nan: .* above 0"),
        ({"temperature": "2"}, "temperature='2': .* above 0"),
        ({"guidance": np.nan}, "guidance=nan: a finite number, 1 for none"),
        ({"guidance": np.inf}, "guidance=inf: a finite number"),
        ({"guidance": "2"}, "guidance='2': a finite number"),
        ({"condition": np.zeros(0, int)}, "condition 0: at least one"),
        ({"condition": [[0], [0, 1]]}, "labels are lists of different lengths"),
        ({"given": [[[0]], [[0, 1]]]}, "codes are lists of different lengths"),
        ({"batch": 2.5}, r"batch=2\.5: how many samples, a whole number from 1 on"),
        ({"batch": -1}, r"batch=-1: how many samples"),
        ({"given": np.zeros((1, 5, 5), int)}, r"\(1, 5, 5\).*\(4, 4\)"),
        ({"given": np.full((1, 4, 4), 16)}, r"from 16 to 16.*from -1 to 15"),
    ],
)
def test_what_cannot_be_is_said(prior, asked, message):
    with pytest.raises(ValueError, match=message):
        prior.sample(KEY, **{"condition": [0], **asked})


def test_an_unconditional_prior_has_no_use_for_labels(unconditional):
    with pytest.raises(ValueError, match=r"unconditional.*batch="):
        unconditional.sample(KEY, [0])


def test_someone_has_to_say_how_many(unconditional):
    with pytest.raises(ValueError, match="how many samples"):
        unconditional.sample(KEY)


@pytest.mark.parametrize(
    "key", [0, None, "a", jax.random.key_data(KEY), jax.random.split(KEY, (1, 1))]
)
def test_a_key_is_one_of_jax_with_a_type(prior, key):
    with pytest.raises(
        ValueError, match=r"give jax\.random\.key\(seed\), or keys \[B\]"
    ):
        prior.sample(key, [0])


@pytest.mark.parametrize("grid", [(0, 4), (-1, -1), (4,), "4", (4.5, 4), 0])
def test_a_grid_that_cannot_be_is_refused(workdir, grid):
    with pytest.raises(ValueError, match=r"grid=.*\(height, width\) in codes, each at"):
        load_prior(workdir, grid=grid)


def test_one_number_is_a_square_grid(workdir):
    assert load_prior(workdir, grid=6).grid == (6, 6)


@pytest.mark.parametrize("dtype", ["float99", "int8", "float16", 7])
def test_a_dtype_that_cannot_be_is_refused(workdir, dtype):
    for load in (load_prior, load_vqgan):
        with pytest.raises(ValueError, match=r"dtype.* allowed: float32, bfloat16"):
            load(workdir, dtype)


def test_a_dtype_may_be_one_of_numpys(workdir):
    assert load_prior(workdir, jax.numpy.bfloat16).module.dtype == "bfloat16"


def test_guidance_needs_label_dropout(unconditional):
    with pytest.raises(ValueError, match=r"without label_dropout.*guidance=1"):
        unconditional.sample(KEY, batch=1, guidance=2.0)


def test_a_tokenizer_that_was_trained_again_is_refused(workdir, tmp_path):
    again = tiny_run.write_run(tmp_path, psnr={7: 21.0})
    shutil.copytree(workdir / "prior", again / "prior")
    with pytest.raises(ValueError, match=r"another tokenizer.*trained again"):
        load_prior(again)


def test_a_prior_without_its_tokenizer_says_what_is_missing(workdir, tmp_path):
    shutil.copytree(workdir / "prior", tmp_path / "prior")
    with pytest.raises(ValueError, match="vqgan"):
        load_prior(tmp_path)


def changed(workdir, output, change):
    """A copy of the run in `output`, whose prior's record is changed."""
    shutil.copytree(workdir, output)
    path = output / "prior" / "config.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return output


def test_a_prior_without_the_tokenizer_of_its_maps_says_what_is_missing(
    workdir, tmp_path
):
    told = {"kind": "label and depth", "told": [], "tokenizer": "condition_vqgan"}
    run = changed(
        workdir, tmp_path / "run", lambda r: r["facts"].update(condition=told)
    )
    message = r"prior is told label and depth .* in .*run there is no condition_vqgan"
    with pytest.raises(ValueError, match=message):
        load_prior(run)


def test_an_order_that_does_not_fit_the_grid_asked_for_is_refused(workdir, tmp_path):
    run = changed(
        workdir,
        tmp_path / "run",
        lambda r: r["config"]["prior"].update(order="subsample"),
    )
    with pytest.raises(ValueError, match=r"order='subsample' halves .* 3 x 4"):
        load_prior(run, grid=(3, 4))


def test_a_mesh_that_splits_heads_is_refused():
    mesh = AbstractMesh((1, 1, 3), ("data", "fsdp", "tensor"))
    with pytest.raises(ValueError, match=r"mesh tensor=3 does not divide .* heads=5"):
        load_prior("shapes", mesh=mesh)


def test_the_tokenizer_may_lie_elsewhere(workdir, tmp_path):
    run = changed(
        workdir,
        tmp_path / "run",
        lambda r: r["config"]["prior"].update(tokenizer=str(workdir)),
    )
    shutil.rmtree(run / "vqgan")
    assert load_prior(run).vqgan.directory == workdir / "vqgan"


def test_any_mesh_with_these_axes_will_do():
    """`jax.make_mesh` gives one of axes that linen does not know."""
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"))
    on_mesh = load_prior("shapes", mesh=mesh)
    alone = load_prior("shapes")
    asked = {"condition": [3, 4], "greedy": True, "shape": (8, 8)}
    expected = alone.sample(jax.random.key(0), **asked)
    assert_array_equal(on_mesh.sample(jax.random.key(0), **asked), expected)
    images = on_mesh.vqgan.decode(expected)
    assert_allclose(images, alone.vqgan.decode(expected), atol=1e-5)
