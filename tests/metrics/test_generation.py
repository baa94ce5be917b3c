"""The evaluation of a prior, against each figure taken in one go."""

import types

import jax
import numpy as np
import pytest
import tiny_run

from taming_jax import data, load_prior
from taming_jax.conditions.direct import LowResolution
from taming_jax.data.order import Order
from taming_jax.metrics.frechet import fit_gaussian, frechet_distance
from taming_jax.metrics.generation import evaluate_prior, what_to_draw
from taming_jax.pretrained.drawing import draw
from taming_jax.units import from_uint8, to_uint8

SAMPLES = 14  # more than the eleven that are held out


class ColourJudge:
    """Features: the mean colour. Prediction: 3 for what is rather red, else 4."""

    card = types.MappingProxyType({"held_out_accuracy": 0.75})

    def __call__(self, pictures):
        colours = pictures.mean(axis=(1, 2)).astype(np.float32)
        return colours, np.where(colours[:, 0] > 120, 3, 4)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    run = tiny_run.write_run(tmp_path_factory.mktemp("generation") / "run")
    return load_prior(tiny_run.write_prior(run))


@pytest.fixture(scope="module")
def held_out():
    return data.open_source(tiny_run.CONFIG["data"], "val")


@pytest.fixture(scope="module")
def measured(prior, held_out):
    return evaluate_prior(
        prior, held_out, seed=5, batch_size=4, samples=SAMPLES, judge=ColourJudge()
    )


@pytest.fixture(scope="module")
def batch(held_out):
    return held_out.read(np.arange(11), None, ("image", "label"))


@pytest.fixture(scope="module")
def drawn(prior):
    """All samples at once, by the prior itself."""
    labels = np.arange(SAMPLES) % 10
    key = jax.random.key(5)
    images = prior.generate(key, labels, temperature=0.9, top_p=0.95, guidance=2.0)
    return labels, to_uint8(images)


def test_bits_per_token_are_those_of_the_logits(prior, batch, measured):
    codes = prior.vqgan.encode(from_uint8(batch["image"]))
    log_p = jax.nn.log_softmax(prior.logits(codes, batch["label"]))
    picked = np.take_along_axis(log_p, np.asarray(codes).reshape(11, -1, 1), -1)
    expected = -float(picked.mean()) / np.log(2)
    assert measured["bits_per_token"] == pytest.approx(expected, rel=1e-5)
    assert measured["examples"] == 11


def test_label_accuracy_is_of_what_was_asked_for(drawn, measured):
    labels, pictures = drawn
    _, predicted = ColourJudge()(pictures)
    assert measured["label_accuracy"] == np.mean(predicted == labels)
    assert measured["samples"] == SAMPLES


def test_the_frechet_distance_is_between_samples_and_originals(batch, drawn, measured):
    features = (ColourJudge()(pictures)[0] for pictures in (batch["image"], drawn[1]))
    expected = frechet_distance(*map(fit_gaussian, features))
    assert measured["judge_frechet"] == pytest.approx(expected, rel=1e-6)


def test_what_the_judge_knows_and_what_is_left_of_it_stand_beside(batch, measured):
    _, predicted = ColourJudge()(batch["image"])
    on_originals = measured["judge_accuracy_on_originals"]
    assert on_originals == np.mean(predicted == batch["label"])
    assert measured["judge_held_out_accuracy"] == 0.75
    assert "judge_accuracy_on_reconstructions" in measured


def test_without_a_judge_there_is_the_likelihood_alone(prior, held_out):
    figures = evaluate_prior(prior, held_out, batch_size=4)
    assert figures.keys() == {"examples", "nats_per_token", "bits_per_token"}


def test_samples_do_not_depend_on_the_batch(prior, drawn):
    labels, pictures = drawn
    settings = prior.default_settings
    parts = [part for _, part in draw(prior, labels, seed=5, batch_size=4, **settings)]
    assert [len(part) for part in parts] == [4, 4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), pictures)


def test_of_pictures_made_worse_the_prior_hears_the_worse_and_is_scored_by_the_better():
    """Each in the way that its number in the data decides, drawn again or not."""
    kind = LowResolution(side=4, degraded=True)
    told = types.SimpleNamespace(told={"low_resolution": kind}, entries=("image",))
    prior = types.SimpleNamespace(vocabulary=told)
    source = data.open_source(tiny_run.CONFIG["data"], "val")
    asked, _, heard = what_to_draw(prior, source, 13, 4)
    numbers = Order(11, seed=0)(np.arange(11))  # that of evaluation
    images = from_uint8(source.read(numbers, None, ("image",))["image"])
    rows = np.arange(13) % 11
    np.testing.assert_array_equal(asked["low_resolution"], images[rows])
    worse = kind.worsened(images, numbers)[rows]
    np.testing.assert_allclose(heard["low_resolution"], worse, atol=1e-6)
    assert (kind.tokens(worse) != kind.tokens(images[rows])).any(1).all()
