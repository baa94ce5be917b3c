"""The first stage beside PyTorch: what is timed is what both can do.

No PyTorch is needed here; that both compute the same is checked by each run.
"""

import pytest

from benchmarks.first_stage_cases import CASES, check_twin
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.recipe import VQGANRecipe


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_one_that_the_twin_has(name):
    section, size, *_ = CASES[name]()
    model = VQGANRecipe.from_config(section).model
    check_twin(model)
    assert size % VQGAN(**model).stride == 0


@pytest.mark.parametrize("name", ["shapes", "shapes-judged", "shapes-frozen"])
def test_the_demo_is_timed_when_all_is_quantized_and_no_code_is_moved(name):
    case = CASES[name]()
    quantizer = VQGAN(**case.section["model"]).quantizer
    assert case.step >= quantizer["start_step"] + quantizer["blend_steps"]
    for step in (case.step, case.step + 1):  # those that are compared with the twin's
        assert (step + 1 - quantizer["start_step"]) % quantizer["revive_every"]


def test_another_quantizer_is_named():
    with pytest.raises(ValueError, match="has the quantizer vq, not ema"):
        check_twin({"quantizer": {"name": "ema"}})
