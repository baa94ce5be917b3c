"""The comparison of tokenizers: what is run, what is not run again, what is printed.

Legend: K codes.
"""

import argparse
import dataclasses
import sys

import jax
import numpy as np
import pytest

from benchmarks import (
    coded_prior,
    photographs,
    tables,
    tokenizer_prior,
    tokenizer_tables,
    tokenizer_trial,
    tokenizers,
)
from benchmarks.tokenizer_variants import VARIANTS, changed, section
from configs import shapes
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.sections import plain
from taming_jax.training.vqgan import make_discriminator, make_init

# What the default and the card that it follows have other values of: its widths, what
# belongs to a longer run, and what nobody sees of a trial.
OF_SIZE = {
    "model.encoder.channels",
    "model.decoder.channels",
    "model.quantizer.start_step",
    "model.quantizer.blend_steps",
    "model.quantizer.revive_every",
    "model.quantizer.revive_until",
    "loss.disc_start",
    "loss.adversarial_start",
    "run.image_every",
    "run.eval_every",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.on_nonfinite",
}
# The tables' default has the adversary on the decoder alone, with codes frozen; the
# cards have it on all weights, which was known to be better when all had run.
OF_ADVERSARY = {"loss.decoder_only_start"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_builds(variant):
    recipe = VQGANRecipe.from_config(section(variant, codes=256, steps=600))
    model, discriminator = VQGAN(**recipe.model), make_discriminator(recipe)
    init = make_init(recipe, model, discriminator)
    state = jax.eval_shape(init, jax.random.key(0))
    assert (model.codebook_size, model.stride) == (256, 8)
    assert state.params["decoder"]["conv_out"]["kernel"].shape[-1] == 3 * 2**2


@pytest.mark.parametrize("codes", [1_024, 16_384])
def test_every_variant_has_the_codes_that_are_asked_for(codes):
    for variant in VARIANTS:
        model = VQGAN(**section(variant, codes, steps=600)["model"])
        assert model.codebook_size == codes, variant


def test_the_default_is_the_card_of_shapes():
    """As recipes: what one of them does not say is the same default for both."""
    card = fields(plain(shapes.get_config())["vqgan"])
    ours = fields(section("default", codes=512, steps=3_400))
    assert card.keys() == ours.keys()
    assert {key for key in ours if ours[key] != card[key]} == OF_SIZE | OF_ADVERSARY


@pytest.mark.parametrize("codes", [256, 1_024, 16_384])
def test_variants_differ_from_the_default_or_are_not_run(codes):
    arguments = argparse.Namespace(
        data=None,
        table=False,
        variants=VARIANTS,
        sizes=[codes],
        seeds=[0],
        steps=600,
    )
    run = [trial["variant"] for trial in tokenizers.every_trial(arguments)]
    default = section("default", codes, steps=600)
    alike = [name for name in run if section(name, codes, 600) == default]
    assert alike == ["default"]
    # Large codebooks have 8 dimensions anyway.
    assert VARIANTS.keys() - run == ({"dim-8"} if codes == 16_384 else set())


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="no variant 'papre': choose among paper"):
        section("papre", codes=256, steps=600)


def test_a_size_without_levels_is_refused():
    with pytest.raises(ValueError, match="written down for 512 codes: choose"):
        section("fsq", codes=512, steps=600)


def test_changes_reach_what_lies_deeper_and_leave_the_rest():
    settings = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    assert changed(settings, {"a.b.c": 5, "e": 6}) == {
        "a": {"b": {"c": 5, "d": 2}},
        "e": 6,
    }
    assert settings == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the script with flags, on trials that do nothing; -> the seeds it ran."""
    ran = []

    def run(section, pictures, seed):
        ran.append(seed)
        return {"psnr": 20.0 + seed, "usage": 0.5}

    monkeypatch.setattr(tokenizer_trial, "run", run)
    monkeypatch.setattr(tokenizer_trial, "open_pictures", lambda name: name)
    monkeypatch.setattr(tokenizers, "keep_programs", lambda: None)

    def command(*flags):
        ran.clear()
        flags = ("--variants", "default", "--sizes", "256", *flags)
        results = str(tmp_path / "results" / "lines.jsonl")
        monkeypatch.setattr(sys, "argv", ["", "--results", results, *flags])
        tokenizers.main()
        return list(ran)

    return command


def test_what_has_a_line_is_not_run_again(command):
    assert command("--seeds", "0,2") == [0, 2]
    assert command("--seeds", "0,1,2") == [1]
    assert command("--seeds", "0,1,2") == []


def test_other_settings_are_another_trial(command):
    assert command("--seeds", "0") == [0]
    assert command("--seeds", "0", "--steps", "500") == [0]
    assert command("--seeds", "0", "--data", "scenes") == [0]


def test_the_table_has_what_was_asked_for(command, capsys):
    command("--seeds", "0,1")
    command("--seeds", "0", "--steps", "500")
    capsys.readouterr()
    assert command("--seeds", "0,1", "--table") == []
    assert capsys.readouterr().out.splitlines() == [
        "**shapes, 256 codes, 600 steps**",
        "",
        "|  | usage | PSNR | seeds |",
        "| --- | --: | --: | --: |",
        "| default | 0.50 ± 0.00 | 20.50 ± 0.50 | 2 |",
    ]


def test_the_table_has_all_data_that_there_are_results_of(command, capsys):
    command("--seeds", "0", "--data", "photographs")
    command("--seeds", "0", "--data", "scenes")
    capsys.readouterr()
    assert command("--table") == []
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("**")] == [
        "**scenes, 256 codes, 600 steps**",
        "**photographs, 256 codes, 600 steps**",
    ]
    command("--table", "--data", "photographs")
    assert "scenes" not in capsys.readouterr().out


def test_a_cell_is_the_mean_and_half_the_range():
    assert tables.cell([1_234.5], 0) == "1,234"
    assert tables.cell([1.0, 2.0, 4.5], 2) == "2.50 ± 1.75"


def test_a_difference_is_bold_where_all_seeds_agree():
    assert tables.cell([-0.5, -1.5], 1, signed=True) == "**-1.0 ± 0.5**"
    assert tables.cell([-0.5, 1.5], 1, signed=True) == "+0.5 ± 1.0"
    assert tables.cell([-0.5], 1, signed=True) == "-0.5"


def test_ingredients_are_compared_with_the_default_of_the_same_seed():
    def trial(variant, seed, psnr):
        same = {"data": "shapes", "codes": 256, "steps": 600}
        return same | {"variant": variant, "seed": seed, "psnr": psnr}

    trials = [trial("default", 0, 20.0), trial("default", 1, 22.0)]
    trials += [trial("no-l2", seed, 19.5 + 2 * seed) for seed in (0, 1, 2)]
    assert tokenizer_tables.ingredients(trials).splitlines() == [
        "|  | PSNR | seeds |",
        "| --- | --: | --: |",
        "| no-l2 | **-0.50 ± 0.00** | 2 |",
    ]


def test_perturbed_codes_are_the_nearest_others(monkeypatch):
    monkeypatch.setattr(tokenizer_trial, "PERTURBED_SHARE", 1.0)
    monkeypatch.setattr(tokenizer_trial, "NEIGHBOURS", 3)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(16, 3)).astype(np.float32)
    codes = rng.integers(0, 16, (8, 8, 8)).astype(np.int32)
    perturbed = tokenizer_trial.perturb(codes, table, seed=1)
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
    nearest = distances.argsort(axis=1)[:, 1:4]  # without itself
    drawn = {(k, n) for k, n in zip(codes.ravel(), perturbed.ravel(), strict=True)}
    assert drawn == {(k, n) for k in range(16) for n in nearest[k]}


def test_the_share_of_perturbed_codes_is_as_stated():
    table = np.eye(8, dtype=np.float32)
    codes = np.zeros((10, 10, 10), np.int32)
    share = np.mean(tokenizer_trial.perturb(codes, table, seed=0) != codes)
    # of 1,000 draws: four standard deviations
    assert share == pytest.approx(tokenizer_trial.PERTURBED_SHARE, abs=0.05)


def test_every_row_comes_once_before_any_comes_again():
    batches = coded_prior.ordered(np.arange(6), batch_size=4, seed=3)
    rows = np.concatenate([next(batches) for _ in range(6)])
    epochs = rows.reshape(4, 6)
    assert (np.sort(epochs, axis=1) == np.arange(6)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_photographs_are_split_by_picture():
    assert not set(photographs.TRAIN) & set(photographs.VAL)


def test_crops_are_the_same_each_time():
    first, again = (photographs.crops(("chelsea.png",), 3, 32, 5) for _ in range(2))
    assert first.shape == (3, 32, 32, 3)
    assert (first == again).all()
    assert not (first[0] == first[1]).all()


def test_a_trial_measures_everything_that_needs_no_judge(monkeypatch):
    small = {"width": 8, "layers": 1, "heads": 1}
    prior = tokenizer_prior.PRIOR
    prior = prior | {"model": prior["model"] | small, "steps": 2}
    monkeypatch.setattr(tokenizer_prior, "PRIOR", prior)
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), np.uint8)
    few = {"encoder.channels": 4, "decoder.channels": 4}
    few = {f"model.{key}": value for key, value in few.items()}
    few |= {"steps": 2, "adversarial_weight": 0.0, "decoder_only_start": None}
    tiny = changed(section("default", codes=16, steps=60), few)
    figures = tokenizer_trial.run(tiny, tokenizer_trial.Pictures(images, images), 0)
    judged = {f"{of}{figure}" for of in ("", "perturbed_", "sampled_")
              for figure in ("frechet", "accuracy")}  # fmt: skip
    shown = {figure for figure, _ in tokenizer_tables.COLUMNS.values()}
    assert shown - judged <= figures.keys()
    assert figures["draws"] == 2 * 64 * 64
    assert figures["bits_per_picture"] == 64 * figures["bits_per_token"]


def fields(section):
    """Those of the recipe that a section makes, with dotted keys."""
    return leaves(dataclasses.asdict(VQGANRecipe.from_config(section)))


def leaves(settings, path=""):
    """Nested settings as one dict with dotted keys."""
    found = {}
    for key, value in settings.items():
        inner = isinstance(value, dict)
        found |= (
            leaves(value, f"{path}{key}.") if inner else {f"{path}{key}": plain(value)}
        )
    return found
