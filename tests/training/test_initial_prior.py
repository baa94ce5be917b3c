"""A prior that begins with another's weights, for the same classes and for others.

And which cannot: rows of another tokenizer's codes, or of another condition, may have
the same shapes.
"""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import stored
from taming_jax.conditions import Vocabulary
from taming_jax.conditions.direct import Coordinates
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import Label
from taming_jax.conditions.objects import Boxes
from taming_jax.conditions.table import as_facts
from taming_jax.models.positions import at_grid
from taming_jax.orders import make_order
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.initial import check_start, start_from
from taming_jax.training.prior import make_init, make_transformer
from taming_jax.training.recipe import PriorRecipe

CODES, CLASSES = tiny_run.CODEBOOK_SIZE, 10


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run's directory, and the parameters of its prior."""
    run = tiny_run.write_run(tmp_path_factory.mktemp("run"))
    tiny_run.write_prior(run)
    return run, stored.read(run, "prior").variables["params"]


RECIPE = PriorRecipe.from_config(tiny_run.PRIOR)


def state(classes, grid=(4, 4), order="raster", codes=CODES, told=None, **changes):
    section = {**tiny_run.PRIOR}
    recipe = PriorRecipe.from_config(section | {"model": section["model"] | changes})
    vocabulary = Vocabulary(codes, classes, told=told)
    model = make_transformer(recipe.model, vocabulary, grid, order)
    return jax.jit(make_init(recipe, model))(jax.random.key(9))


def settings(run, classes=CLASSES, told=None, order="raster", length=1, **changes):
    """Of a prior of the same tokenizer: its recipe, its facts."""
    facts = {
        **stored.read_record(run, "prior")["facts"],
        "class_names": [f"thing {i}" for i in range(classes)],
        **changes,
    }
    if told is not None:
        said = {"kind": " and ".join(told), "length": length, "told": as_facts(told)}
        facts["condition"] = said | {"fingerprint": "ours"}
    recipe = PriorRecipe.from_config({**tiny_run.PRIOR, "order": order})
    return {"recipe": recipe, "facts": facts}


def test_weights_are_the_other_priors(other):
    run, params = other
    ours = start_from(str(run), state(CLASSES), "prior", settings(run))
    jax.tree.map(assert_array_equal, ours.params, params)
    jax.tree.map(assert_array_equal, ours.ema, params)


@pytest.mark.parametrize("classes", [0, 3, 10, 12])
def test_other_classes_begin_with_the_first_ones_and_no_class(other, classes):
    run, params = other
    begun = state(classes), "prior", settings(run, classes)
    ours = start_from(str(run), *begun).params
    for theirs, here in (
        (params["embedding"], ours["embedding"]),
        (params["head"]["kernel"].T, ours["head"]["kernel"].T),
    ):
        kept, nothing = min(classes, CLASSES), theirs[-1]
        assert_array_equal(here[: CODES + kept], theirs[: CODES + kept])
        assert_array_equal(
            here[CODES + kept :], np.tile(nothing, (1 + classes - kept, 1))
        )


@pytest.mark.parametrize("classes", [3, 12])
def test_what_is_told_beside_a_class_keeps_its_meaning(tmp_path, other, classes):
    """Its tokens follow those of the classes, and move with these."""
    run = told(tmp_path, other, {"label": LABEL, "direct_depth": DEPTH})
    theirs = stored.read(run, "prior").variables["params"]["embedding"]
    label = Label(tuple(f"thing {i}" for i in range(classes)))
    kinds = {"label": label, "direct_depth": DEPTH}
    begun = state(0, told=kinds), "prior", settings(run, classes, kinds, length=17)
    ours = start_from(str(run), *begun).params["embedding"]
    assert_array_equal(ours[-1], theirs[-1])
    assert_array_equal(ours[-7:-1], theirs[-7:-1])
    kept = CODES + min(classes, CLASSES)
    assert_array_equal(ours[:kept], theirs[:kept])


@pytest.mark.parametrize("order", ["raster", "spiral_in"])
def test_positions_of_another_grid_lie_between_those_that_were_learned(other, order):
    """As `load_prior(..., grid=)` has them: token i of the new order at its place."""
    run, params = other
    begun = state(CLASSES, (6, 6), order)
    new = settings(run, order=order, grid=[6, 6])
    ours = start_from(str(run), begun, "prior", new).params
    model = make_transformer(RECIPE.model, Vocabulary(CODES, CLASSES), (4, 4))
    _, expected = at_grid(model, params, (6, 6), make_order(order, (6, 6)))
    assert_array_equal(ours["positions"], expected["positions"])
    assert_array_equal(ours["positions"][0], params["positions"][0])  # of the class
    assert_array_equal(ours["embedding"], params["embedding"])


def test_in_another_order_each_place_keeps_its_position(other):
    """But for the last code of the old order, which was never shown."""
    run, params = other
    begun = state(CLASSES, order="spiral_in")
    new = settings(run, order="spiral_in")
    ours = start_from(str(run), begun, "prior", new).params["positions"]
    places = make_order("spiral_in", (4, 4))[:-1]
    known = places < 15
    assert_allclose(ours[1:][known], params["positions"][1 + places[known]], rtol=1e-6)


def test_another_model_is_refused(other):
    run, _ = other
    with pytest.raises(ValueError, match=r"is another model: .* parameters differ"):
        check_start(str(run), state(CLASSES, width=8).params, "prior", settings(run))


LABEL = Label(tuple(f"class {i}" for i in range(CLASSES)))
DEPTH = DirectMap(("depth", False), image_size=16, side=4, levels=6)
BOXES = Boxes(("a", "b"), objects=3, vocabulary=36)


def told(path, other, kinds):
    """A run whose prior is told these; its weights are random."""
    run, _ = other
    stage_dir = path / "run" / "prior"
    stage_dir.mkdir(parents=True)
    record = stored.read_record(run, "prior")
    length = sum(kind.length for kind in kinds.values())
    classes = CLASSES if "label" in kinds else 0
    new = settings(run, classes, kinds or None, length=length)
    record["facts"] = new["facts"]
    (stage_dir / "config.json").write_text(json.dumps(record))
    best = ("loss", "min")
    with Checkpoints(stage_dir / "checkpoints", keep=1, best=best) as checkpoints:
        checkpoints.save(4, state(0, told=kinds), {"loss": 2.0})
        checkpoints.wait()
    return path / "run"


@pytest.mark.parametrize(
    ("codes", "classes"), [(32, CLASSES), (24, 2), (8, 18)], ids=str
)
def test_a_prior_of_other_codes_is_refused_though_its_rows_are_as_many(
    other, codes, classes
):
    run, _ = other
    begun = state(classes, codes=codes).params
    message = rf"draws 16 codes, and the tokenizer here has {codes}: set prior\.tokeniz"
    with pytest.raises(ValueError, match=message):
        check_start(str(run), begun, "prior", settings(run, classes, codes=codes))


def test_a_prior_of_another_tokenizer_is_refused(other):
    run, _ = other
    new = settings(run, tokenizer={"fingerprint": "0123456789abcdef"})
    message = r"codes of another tokenizer .*here 0123456789ab.*prior\.tokenizer"
    with pytest.raises(ValueError, match=message):
        check_start(str(run), state(CLASSES).params, "prior", new)


def test_of_a_prior_without_a_tokenizer_what_is_known_is_compared(tmp_path, other):
    """One that was converted alone: how many codes, and what it is told."""
    run, _ = other
    alone = tmp_path / "run"
    shutil.copytree(run, alone)
    record = stored.read_record(run, "prior")
    record["facts"]["tokenizer"]["fingerprint"] = None
    (alone / "prior" / "config.json").write_text(json.dumps(record))
    check_start(str(alone), state(CLASSES).params, "prior", settings(run))
    with pytest.raises(ValueError, match="draws 16 codes"):
        check_start(str(alone), state(1).params, "prior", settings(run, codes=25))


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({"label": LABEL}, {"direct_depth": DEPTH}, "is told label, .* direct_depth"),
        ({}, {"direct_depth": DEPTH}, "is told nothing, and here it is direct_depth"),
        (
            {"label": LABEL, "direct_depth": DEPTH},
            {"direct_depth": DEPTH, "label": LABEL},
            "is told label and direct_depth, and here it is direct_depth and label",
        ),
        (
            {"direct_depth": DEPTH},
            {"direct_depth": dataclasses.replace(DEPTH, levels=7)},
            r"direct_depth with levels=6, and here it is 7",
        ),
        (
            {"boxes": BOXES},
            {"boxes": dataclasses.replace(BOXES, vocabulary=49)},
            r"boxes with vocabulary=36, and here it is 49",
        ),
        (
            {"boxes": BOXES},
            {"boxes": dataclasses.replace(BOXES, objects=2)},
            r"learned positions of 9 condition tokens, and here there are 6",
        ),
    ],
)
def test_another_condition_is_refused(tmp_path, other, there, here, message):
    run = told(tmp_path, other, there)
    length = sum(kind.length for kind in here.values())
    new = settings(run, 0, here, length=length)
    with pytest.raises(ValueError, match=message):
        check_start(str(run), state(0, told=here).params, "prior", new)


def test_a_condition_by_codes_of_another_tokenizer_is_refused(tmp_path, other):
    """Fingerprints are those that runs told maps remember."""
    kinds = {"direct_depth": DEPTH}
    run = told(tmp_path, other, kinds)
    new = settings(run, 0, kinds, length=DEPTH.length)
    new["facts"]["condition"]["fingerprint"] = "another"
    message = (
        r"told codes of another tokenizer .*here another\): set prior\.condition_tok"
    )
    with pytest.raises(ValueError, match=message):
        check_start(str(run), state(0, told=kinds).params, "prior", new)


def test_a_condition_of_other_classes_is_the_same(tmp_path, other):
    run = told(tmp_path, other, {"boxes": BOXES})
    here = {"boxes": dataclasses.replace(BOXES, names=("c", "d", "e"))}
    new = settings(run, 0, here, length=BOXES.length)
    check_start(str(run), state(0, told=here).params, "prior", new)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "coord", "length": 16}, None),
        (
            {"kind": "coord", "length": 16, "steps": 8},
            "told coordinates with steps=8, and here it is 16",
        ),
        (
            {"kind": "coord", "length": 9},
            "learned positions of 9 condition tokens, and here there are 16",
        ),
        (
            {"kind": "objects_bbox", "length": 16},
            "is told objects_bbox, and here it is coordinates",
        ),
        ({"kind": "label", "length": 1}, "is told label, and here it is coordinates"),
    ],
)
def test_published_priors_say_in_their_own_words_what_they_are_told(
    tmp_path, said, message
):
    run = tiny_run.write_run(tmp_path / "run")
    plain = {"label_dropout": 0.0, "sampling": {}, "shared_vocabulary": True}
    section = {**tiny_run.PRIOR, **plain}
    section["model"] = {**section["model"], "prefix": 16}
    tiny_run.write_prior(run, section)
    record = stored.read_record(run, "prior")
    record["facts"]["condition"] = said
    (run / "prior" / "config.json").write_text(json.dumps(record))
    kinds = {"coordinates": Coordinates(image_size=16, stride=4, steps=16, one=False)}
    new = settings(run, 0, kinds, length=16)
    new["recipe"] = PriorRecipe.from_config(section)
    like = stored.read(run, "prior").variables["params"]
    if message is None:
        check_start(str(run), like, "prior", new)
    else:
        with pytest.raises(ValueError, match=message):
            check_start(str(run), like, "prior", new)


def test_a_shared_vocabulary_says_classes_by_other_tokens(tmp_path):
    run = tiny_run.write_run(tmp_path / "run")
    plain = {"label_dropout": 0.0, "sampling": {}, "shared_vocabulary": True}
    section = {**tiny_run.PRIOR, **plain}
    tiny_run.write_prior(run, section)
    like = stored.read(run, "prior").variables["params"]
    with pytest.raises(
        ValueError, match="has shared_vocabulary=True, and here it is F"
    ):
        check_start(str(run), like, "prior", settings(run))
    new = settings(run, 0) | {"recipe": PriorRecipe.from_config(section)}
    with pytest.raises(ValueError, match="is told label, and here it is nothing"):
        check_start(str(run), like, "prior", new)
