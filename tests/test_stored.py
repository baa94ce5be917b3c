"""`stored`: where a model is found, what is read of it, and what an export keeps."""

import copy
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from etils import epath
from numpy.testing import assert_array_equal

from taming_jax import fingerprint, ranking, stored
from taming_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    psnr = {1: 10.0, 2: 30.0, 3: 20.0}
    return tiny_run.write_run(tmp_path_factory.mktemp("stored") / "run", psnr=psnr)


@pytest.fixture(scope="module")
def model(workdir):
    return stored.read(workdir, "vqgan")


@pytest.fixture
def exported(model, tmp_path):
    directory = epath.Path(tmp_path / "exported" / "vqgan")
    stored.write(directory, model, dtype="float16", card={"note": "tiny"})
    return directory


@pytest.fixture
def assets(exported, tmp_path, monkeypatch):
    """A package that brings along the models `tiny` and `small`."""
    for name in ("tiny", "small"):
        shutil.copytree(exported.parent, tmp_path / "assets" / name)
    monkeypatch.setattr(stored, "ASSETS", epath.Path(tmp_path / "assets"))
    return stored.ASSETS


# Checkpoints


def test_weights_are_the_newest_averages(model):
    assert (model.step, sorted(model.variables)) == (3, ["codebook", "params"])
    expected = tiny_run.random_params(3)
    jax.tree.map(assert_array_equal, model.variables["params"], expected)


def test_weights_are_the_best_averages_if_asked(workdir):
    model = stored.read(workdir, "vqgan", best=True)
    assert model.step == 2
    expected = tiny_run.random_params(2)
    jax.tree.map(assert_array_equal, model.variables["params"], expected)


def test_weights_are_plain_arrays(model):
    assert {type(leaf) for leaf in jax.tree.leaves(model.variables)} == {np.ndarray}


def test_without_ratings_the_newest_is_the_best(tmp_path):
    state = {"ema": {"kernel": np.zeros(3)}, "codebook": {}}
    best = ("psnr", "max")
    with Checkpoints(tmp_path / "checkpoints", keep=2, best=best) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state)
    assert stored.read_checkpoint(tmp_path, best)[0] == 2


@pytest.mark.parametrize(
    ("metrics", "best", "expected"),
    [
        ({"psnr": 3.0}, ("psnr", "max"), 3.0),
        ({"loss": 3.0}, ("loss", "min"), -3.0),
        ({"loss": 3.0}, ("psnr", "max"), -np.inf),
    ],
)
def test_higher_scores_are_better(metrics, best, expected):
    assert ranking.score(metrics, best) == expected


def test_a_directory_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no checkpoints: is it a run's directory"):
        stored.read_checkpoint(tmp_path)


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds no checkpoint yet: train first"):
        stored.read_checkpoint(tmp_path)


# Places and names


def test_a_run_and_its_stage_are_the_same_place(workdir):
    directory = epath.Path(workdir / "vqgan")
    assert stored.find(workdir, "vqgan") == directory
    assert stored.find(workdir / "vqgan", "vqgan") == directory


def test_a_run_may_have_the_name_of_a_stage(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "vqgan")
    found = stored.find(tmp_path / "vqgan", "vqgan")
    assert found == epath.Path(tmp_path / "vqgan" / "vqgan")


def test_an_exported_stage_may_have_any_name(exported, tmp_path):
    exported.rename(tmp_path / "mine")
    assert stored.find(tmp_path / "mine", "vqgan") == epath.Path(tmp_path / "mine")


def test_a_stage_is_not_taken_for_another(exported):
    with pytest.raises(ValueError, match="it has no trained prior"):
        stored.find(exported, "prior")


def test_a_home_directory_is_understood(workdir, monkeypatch):
    monkeypatch.setenv("HOME", str(workdir.parent))
    assert stored.find("~/run", "vqgan") == epath.Path(workdir / "vqgan")


def test_a_bucket_is_looked_into_under_its_own_name(monkeypatch):
    asked = []

    def exists(path):
        asked.append(str(path))
        return True

    monkeypatch.setattr(type(epath.Path("gs://bucket")), "exists", exists)
    assert str(stored.find("gs://bucket/run", "vqgan")) == "gs://bucket/run/vqgan"
    assert asked[-1] == "gs://bucket/run/vqgan/config.json"


def test_a_name_stands_for_a_model_of_the_package(assets):
    assert stored.find("tiny", "vqgan") == assets / "tiny" / "vqgan"


def test_a_path_that_exists_is_no_name(assets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(ValueError, match="no model at 'tiny': it has no trained vqgan"):
        stored.find("tiny", "vqgan")


def test_what_is_neither_path_nor_name_gets_the_names(assets):
    named = r"no model at 'medium': it does not exist.*a name out of small, tiny"
    with pytest.raises(ValueError, match=named):
        stored.find("medium", "vqgan")


def test_a_package_without_models_offers_none(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "ASSETS", epath.Path(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"W or W/vqgan$"):
        stored.find("medium", "vqgan")


# Exported models


def test_float32_keeps_every_bit(model, tmp_path):
    stored.write(epath.Path(tmp_path / "vqgan"), model, dtype="float32", card={})
    again = stored.read(tmp_path, "vqgan")
    assert (again.step, again.config) == (model.step, model.config)
    jax.tree.map(assert_array_equal, again.variables, model.variables)


def test_half_precision_halves_all_but_the_quantizer(exported, model):
    again = stored.read(exported, "vqgan").variables["params"]
    params = model.variables["params"]
    assert_array_equal(
        again["quantizer"]["embedding"], params["quantizer"]["embedding"]
    )
    kernel = params["decoder"]["conv_in"]["kernel"]
    expected = kernel.astype(np.float16).astype(np.float32)
    assert_array_equal(again["decoder"]["conv_in"]["kernel"], expected)
    assert again["decoder"]["conv_in"]["kernel"].dtype == np.float32
    with np.load(exported / "weights.npz") as file:
        dtypes = {name: file[name].dtype.name for name in file.files}
    assert dtypes.pop("params/quantizer/embedding") == "float32"
    assert set(dtypes.values()) == {"float16"}


def test_an_export_says_what_it_is(exported):
    record = json.loads((exported / "config.json").read_text())
    assert (record["stage"], record["step"]) == ("vqgan", 3)
    assert record["card"] == {"note": "tiny"}
    assert record["config"] == tiny_run.CONFIG


def test_weights_beyond_half_precision_are_refused(model, tmp_path):
    variables = copy.deepcopy(model.variables)
    variables["params"]["decoder"]["conv_in"]["bias"][0] = 1e6
    large = dataclasses.replace(model, variables=variables)
    named = r"decoder/conv_in/bias reaches 1e\+06, more than float16 holds"
    with pytest.raises(ValueError, match=named):
        stored.write(epath.Path(tmp_path), large, dtype="float16", card={})


def test_a_dtype_that_no_file_holds_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="'bfloat16'; weights are kept as float16 or"):
        stored.write(epath.Path(tmp_path), model, dtype="bfloat16", card={})


def test_a_torn_file_is_named(exported):
    weights = exported / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"weights\.npz is damaged"):
        stored.read(exported, "vqgan")


# Fingerprints


def test_an_exported_model_has_its_runs_fingerprint(exported, model):
    assert stored.read(exported, "vqgan").fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("part", "same"),
    [
        ("encoder", False),
        ("quant_conv", False),
        ("quantizer", False),
        ("decoder", True),
        ("post_quant_conv", True),
    ],
)
def test_a_fingerprint_is_of_what_makes_codes(model, part, same):
    variables = copy.deepcopy(model.variables)
    leaf = jax.tree.leaves(variables["params"][part])[-1]
    leaf.flat[-1] += 1 / 64
    other = fingerprint.of_codes({"model": tiny_run.MODEL}, variables)
    assert (other == model.fingerprint) == same


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"quantizer": tiny_run.MODEL["quantizer"] | {"normalize": True}}, False),
        ({"encoder": tiny_run.MODEL["encoder"] | {"norm_groups": 2}}, False),
        ({"dtype": "bfloat16"}, False),
        ({"dtype": "float32"}, True),
        ({"decoder": tiny_run.MODEL["decoder"] | {"norm_groups": 2}}, True),
        ({"remat": True}, True),
    ],
)
def test_the_settings_of_the_encoder_count_too(model, change, same):
    section = {"model": tiny_run.MODEL | change}
    other = fingerprint.of_codes(section, model.variables)
    assert (other == model.fingerprint) == same


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"input": "image", "stretch": False}, True),
        ({"input": None}, True),
        ({"input": "depth"}, False),
        ({"input": "edges"}, False),
        ({"input": "depth", "stretch": True}, False),
        ({"model": tiny_run.MODEL | {"classes": True}, "input": "segmentation"}, False),
        ({"model": tiny_run.MODEL | {"classes": False}}, True),
    ],
)
def test_what_a_tokenizer_reads_counts_too(model, change, same):
    other = fingerprint.of_codes({"model": tiny_run.MODEL} | change, model.variables)
    assert (other == model.fingerprint) == same


def test_each_way_of_reading_has_a_fingerprint_of_its_own(model):
    ways = [{}, {"input": "depth"}, {"input": "depth", "stretch": True}]
    ways += [{"input": "edges"}, {"input": "edges", "stretch": True}]
    prints = {
        fingerprint.of_codes({"model": tiny_run.MODEL} | way, model.variables)
        for way in ways
    }
    assert len(prints) == len(ways)


def test_fingerprints_that_priors_and_codes_have_recorded_are_still_given():
    """The bundled prior's, of its tokenizer."""
    recorded = stored.read("shapes", "prior").record["facts"]["tokenizer"]
    assert stored.read("shapes", "vqgan").fingerprint == recorded["fingerprint"]
