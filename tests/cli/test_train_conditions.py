"""A prior that is told something else than classes: from training to pictures."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from tiny_conditions import DATA, config, train

from taming_jax import cli, data, load_prior, maps, stored
from taming_jax.data.order import Order
from taming_jax.data.scenes import CLASSES
from taming_jax.metrics import truth
from taming_jax.metrics.generation import evaluate_prior
from taming_jax.training.checkpoints import Checkpoints

KEY = jax.random.key(0)


@pytest.fixture
def directory(tmp_path):
    return write_tokenizers(tmp_path)


def write_tokenizers(directory, seed=3):
    tiny_run.write_run(directory, config(["label", "segmentation"]))
    write_map_tokenizer(directory, seed)
    return directory


def write_map_tokenizer(directory, seed):
    stage = directory / "condition_vqgan"
    stage.mkdir(exist_ok=True)
    record = {"config": config("segmentation"), "facts": {}}
    (stage / "config.json").write_text(json.dumps(record))
    params = tiny_run.random_params(seed, tiny_run.maps_model(11))
    with Checkpoints(
        stage / "checkpoints", keep=1, best=("mean_iou", "max")
    ) as checkpoints:
        state = {"ema": params, "codebook": {}}
        checkpoints.save(seed, state, {"mean_iou": 0.5})
        checkpoints.wait()


def held_out(*keep):
    return data.open_source(DATA, "val").read(np.arange(5), None, keep)


@pytest.fixture(scope="module")
def of_maps(tmp_path_factory):
    """A class map and a label together."""
    directory = write_tokenizers(tmp_path_factory.mktemp("maps") / "run")
    return train(directory, ["label", "segmentation"])


@pytest.fixture(scope="module")
def of_boxes(tmp_path_factory):
    directory = write_tokenizers(tmp_path_factory.mktemp("boxes") / "run")
    return train(directory, {"name": "boxes", "objects": 4, "vocabulary": 64})


def test_a_prior_of_maps_brings_their_tokenizer_along(of_maps):
    prior = load_prior(of_maps)
    assert prior.condition_vqgan.input.kind == "segmentation"
    assert prior.told == "label and segmentation"
    assert prior.class_names == CLASSES
    # Codes, classes, codes of the map, and nothing; one label and 4 x 4 codes.
    assert prior.vocabulary.size == 16 + 10 + 16 + 1
    assert prior.vocabulary.length == 1 + 16


def test_what_it_is_told_are_the_codes_of_the_map(of_maps):
    prior = load_prior(of_maps)
    batch = held_out("segmentation", "label")
    asked = {"label": batch["label"], "segmentation": batch["segmentation"]}
    tokens = prior.vocabulary.asked_tokens(prior.vocabulary.checked(asked))
    codes = prior.condition_vqgan.encode(batch["segmentation"])
    assert_array_equal(tokens[:, 0], 16 + batch["label"])
    assert_array_equal(tokens[:, 1:], 26 + codes.reshape(5, -1))


def test_guidance_moves_away_from_what_is_drawn_without_map_and_label(of_maps):
    """The first codes by the equation; after two places there is none."""
    prior = load_prior(of_maps)
    batch = held_out("segmentation", "label")
    asked = {"label": batch["label"], "segmentation": batch["segmentation"]}
    codes = prior.sample(
        KEY, asked, guidance=3.0, guidance_schedule="interval:0", greedy=True
    )
    told = prior.logits(codes, asked)[..., :16]
    sequence = np.concatenate([prior.vocabulary.no_label(5), codes.reshape(5, -1)], 1)
    untold = prior.module.apply({"params": prior.params}, sequence[:, :-1])[:, 16:, :16]
    expected = np.where(np.arange(16)[:, None] < 2, untold + 3 * (told - untold), told)
    assert_array_equal(codes.reshape(5, -1), expected.argmax(-1))


@pytest.mark.devices(2)
def test_a_batch_over_two_devices_says_what_it_says_on_one(tmp_path):
    """Split by rows, and with the state split, too: the same losses."""
    losses = []
    for i, mesh in enumerate(({"data": 2}, {"data": 1, "fsdp": 2})):
        run = write_tokenizers(tmp_path / str(i))
        card = {"data": 1, "fsdp": 1, "tensor": 1} | mesh
        train(run, ["segmentation", {"name": "boxes", "vocabulary": 64}], mesh=card)
        lines = (run / "prior" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(lines[-1])[name] for name in ("loss", "val_loss")])
    assert_allclose(*losses, rtol=1e-5)


def test_another_map_gives_other_logits(of_maps):
    prior = load_prior(of_maps)
    batch = held_out("segmentation", "label")
    codes = np.zeros((5, 4, 4), np.int32)
    asked = {"label": batch["label"], "segmentation": batch["segmentation"]}
    turned = asked | {"segmentation": batch["segmentation"][:, :, ::-1].copy()}
    assert not np.allclose(prior.logits(codes, asked), prior.logits(codes, turned))


def test_training_leaves_pictures_of_what_was_asked_above_the_samples(of_maps):
    with Image.open(of_maps / "prior" / "images" / "samples_0000002.png") as picture:
        assert picture.height > 4 * 16


def test_held_out_pictures_are_measured_under_their_own_conditions(of_maps):
    prior = load_prior(of_maps)
    source = data.open_source(DATA, "val")
    figures = evaluate_prior(prior, source, batch_size=4)
    batch = held_out("image", "segmentation", "label")
    asked = {"label": batch["label"], "segmentation": batch["segmentation"]}
    codes = prior.vqgan.encode(batch["image"] / np.float32(127.5) - 1)
    logits = jax.nn.log_softmax(prior.logits(codes, asked))
    expected = np.take_along_axis(logits, codes.reshape(5, -1, 1), -1).mean()
    assert_allclose(figures["nats_per_token"], -expected, rtol=1e-5)


class Truth:
    """Reads the class map of the held-out pictures' first one off all pictures."""

    def __call__(self, pictures):
        first = held_out("segmentation")["segmentation"][0]
        return {"segmentation": np.broadcast_to(first, (len(pictures), 16, 16))}


def test_samples_are_scored_against_what_was_asked_for(of_maps):
    source = data.open_source(DATA, "val")
    figures = evaluate_prior(
        load_prior(of_maps), source, batch_size=4, samples=7, reader=Truth()
    )
    asked = held_out("segmentation")["segmentation"]
    each = truth.iou(asked, np.broadcast_to(asked[0], asked.shape))
    each = each[Order(5, seed=0)(np.arange(5))]  # that of evaluation
    # Seven samples are asked for by the five held-out maps and the first two again.
    assert_allclose(figures["iou"], np.mean([*each, *each[:2]]))
    assert_allclose(figures["iou_of_originals"], each.mean())
    assert figures["iou_of_reconstructions"] == figures["iou_of_originals"]
    assert figures["samples"] == 7


def test_evaluate_has_a_reader_only_for_what_can_be_read(
    of_boxes, of_maps, capsys, monkeypatch
):
    monkeypatch.setattr("taming_jax.metrics.judge.judge_of", lambda *_, **__: None)
    monkeypatch.setattr("taming_jax.metrics.reader.reader_of", lambda *_, **__: Truth())
    for run in (of_boxes, of_maps):
        flags = ["--workdir", str(run), "--stage", "prior", "--samples", "5"]
        assert cli.main(["evaluate", *flags, "--batch_size", "5"]) == 0
    assert "boxes_found_of_originals" in capsys.readouterr().out


def test_crops_have_no_judge_and_are_read_for_what_they_have(capsys, monkeypatch):
    learned = {}

    def reader_of(train, *, reads, regions, **_):
        learned.update(reads=reads, regions=regions)
        return lambda shown: {"segmentation": np.zeros(shown.shape[:3], int)}

    monkeypatch.setattr("taming_jax.metrics.judge.judge_of", None)
    monkeypatch.setattr("taming_jax.metrics.reader.reader_of", reader_of)
    for stage in ("vqgan", "prior"):
        flags = ["--model", "scenes", "--samples", "2", "--batch_size", "2"]
        assert cli.main(["evaluate", "--stage", stage, *flags]) == 0
    assert learned == {"reads": ["segmentation", "depth", "edges"], "regions": 11}
    out = capsys.readouterr().out
    assert "no judge: the data have no classes" in out
    assert "iou_of_reconstructions" in out


def test_an_exported_prior_has_the_tokenizer_of_its_condition_beside_it(
    of_maps, tmp_path
):
    flags = ["--workdir", of_maps, "--output", tmp_path / "out", "--dtype", "float32"]
    assert cli.main(["export", *map(str, flags)]) == 0
    prior = load_prior(tmp_path / "out")
    batch = held_out("segmentation", "label")
    asked = {"label": batch["label"], "segmentation": batch["segmentation"]}
    assert_array_equal(prior.sample(KEY, asked), load_prior(of_maps).sample(KEY, asked))


def test_a_prior_learns_from_pairs_of_codes_what_it_learns_on_the_way(
    of_maps, tmp_path
):
    """The same losses of the same steps: the same codes under the same conditions."""
    run = write_tokenizers(tmp_path / "run")
    assert cli.main(["tokenize", "--workdir", str(run)]) == 0
    about = json.loads((run / "codes" / "codes.json").read_text())
    assert about["condition"]["fingerprint"] == fingerprint(run, "condition_vqgan")
    assert about["fingerprint"] == fingerprint(run, "vqgan")
    train(run, ["label", "segmentation"])
    lines = [(w / "prior" / "metrics.jsonl").read_text() for w in (run, of_maps)]
    there, here = ([json.loads(line) for line in part.splitlines()] for part in lines)
    for name in ("loss", "val_loss"):
        assert_allclose(there[-1][name], here[-1][name], rtol=1e-5)


def fingerprint(run, stage):
    return stored.read(run, stage).fingerprint


def test_sample_draws_for_each_map_and_class(of_maps, tmp_path):
    asked = tmp_path / "asked"
    asked.mkdir()
    for i, each in enumerate(held_out("segmentation")["segmentation"][:2]):
        maps.write_class_map(asked / f"{i}.png", each)
    output = tmp_path / "out"
    flags = ["--workdir", of_maps, "--output", output, "--condition", asked]
    flags += ["--classes", "7", "--count", 2, "--guidance", 1]
    assert cli.main(["sample", *map(str, flags)]) == 0
    with np.load(output / "samples.npz") as arrays:
        drawn, labels = arrays["arr_0"], arrays["labels"]
    assert labels.tolist() == [7] * 4
    batch = held_out("segmentation")["segmentation"][[0, 0, 1, 1]]
    images = load_prior(of_maps).generate(
        KEY, {"label": labels, "segmentation": batch}, temperature=0.9, top_p=0.95
    )
    assert_allclose(drawn, np.round((np.asarray(images) + 1) * 127.5), atol=1)
    with Image.open(output / "grid.png") as picture:
        assert picture.width > 3 * 16  # the map, and two samples of it


def test_sample_draws_for_objects_in_a_file(of_boxes, tmp_path):
    asked = tmp_path / "asked.json"
    boxes = {"boxes": [[0.1, 0.2, 0.5, 0.9]], "box_classes": [4]}
    asked.write_text(json.dumps(boxes))
    flags = ["--workdir", of_boxes, "--output", tmp_path / "out", "--count", 2]
    assert cli.main(["sample", *map(str, flags), "--condition", str(asked)]) == 0
    assert (tmp_path / "out" / "00001.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "told boxes: give --condition"),
        (["--condition", "nowhere"], "nowhere: there is no .json of boxes"),
        (["--condition", "FILE"], r"cannot be read \('box_classes'\): give JSON with"),
        (["--condition", "FILE", "--classes", "1"], "not told classes"),
    ],
)
def test_sample_says_what_it_cannot_read(of_boxes, tmp_path, capsys, flags, message):
    (tmp_path / "FILE").write_text('{"boxes": []}')
    flags = [str(tmp_path / "FILE") if flag == "FILE" else flag for flag in flags]
    output = ["--workdir", str(of_boxes), "--output", str(tmp_path / "out")]
    assert cli.main(["sample", *output, *flags]) != 0
    assert_matches(message, capsys.readouterr().err)


def assert_matches(message, text):
    with pytest.raises(ValueError, match=message):
        raise ValueError(text)


def test_a_tokenizer_of_maps_that_was_trained_again_is_refused(of_maps, tmp_path):
    run = write_tokenizers(tmp_path / "run", seed=4)
    (of_maps / "prior").rename(run / "prior")
    try:
        with pytest.raises(ValueError, match=r"another tokenizer than .*cond"):
            load_prior(run)
    finally:
        (run / "prior").rename(of_maps / "prior")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("depth", "the condition's tokenizer is for segmentation"),
        ("pose", "condition='pose' is not allowed: .*keypoints"),
        ({"name": "boxes", "tall": 1}, "no option 'tall': it has objects, vocabulary"),
        ({"name": "segmentation", "side": 6}, "side to a multiple"),
        (["depth", "edges"], "only one of segmentation, depth, edges"),
    ],
)
def test_what_cannot_be_told_ends_training_in_a_line(
    directory, capsys, condition, message
):
    with pytest.raises(SystemExit):
        train(directory, condition)
    assert_matches(message, capsys.readouterr().err)


def test_a_map_without_a_tokenizer_ends_training_in_a_line(tmp_path, capsys):
    tiny_run.write_run(tmp_path, config("depth"))
    with pytest.raises(SystemExit):
        train(tmp_path, "depth")
    assert "--stage=condition_vqgan" in capsys.readouterr().err
