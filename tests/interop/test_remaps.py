"""Lists of used codes come from the checkpoint or from a file, and must fit."""

import numpy as np
import pytest
import yaml
from golden import FOLDER, golden, nhwc
from numpy.testing import assert_array_equal

import taming_jax
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.formats.torch_files import write_torch

CASE = golden("13_vqmodel_ckpt")  # 32 codes
USED = np.unique(CASE.outputs["indices"])[::-2]


@pytest.fixture
def files(tmp_path):
    """write(listed, kept): a checkpoint that has `kept`, a .yaml that names `listed`.

    The .yaml names it by a path of another machine; it lies beside.
    """

    def write(listed, kept=None):
        config = yaml.safe_load((FOLDER / "13_vqmodel.yaml").read_text())
        config["model"]["params"]["remap"] = "data/used.npy"
        (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
        if listed is not None:
            np.save(tmp_path / "used.npy", listed)
        tensors = (
            CASE.weights if kept is None else CASE.weights | {"quantize.used": kept}
        )
        write_torch(tmp_path / "model.ckpt", {"state_dict": tensors})
        return tmp_path / "model.ckpt", tmp_path / "model.yaml", tmp_path / "out"

    return write


@pytest.mark.parametrize(("listed", "kept"), [(USED, None), (None, USED), (USED, USED)])
def test_codes_are_numbered_by_the_list(files, listed, kept):
    *source, output = files(listed, kept)
    convert_checkpoint(*source, output)
    codes = taming_jax.load_vqgan(output).encode(nhwc(CASE.inputs["x"]))
    original = CASE.outputs["indices"].reshape(codes.shape)
    known = np.isin(original, USED)
    assert 0 < known.sum() < known.size
    assert_array_equal(USED[codes[known]], original[known])
    assert codes.max() < len(USED)


@pytest.mark.parametrize(
    ("listed", "kept", "message"),
    [
        (
            None,
            None,
            r"remap is '.*used\.npy', and there is no such file; put it beside",
        ),
        (USED, USED[:3], r"used\.npy lists are not those of the checkpoint's quantize"),
        (
            USED + 1,
            None,
            r"used codes reaches from 2 to 32; it takes distinct integers",
        ),
        (None, USED + 1, r"used codes reaches from 2 to 32; .* for another codebook\?"),
        (USED / 2, None, r"used codes is float64 of shape \(12,\)"),
        (np.array([{}]), None, r"used\.npy is no list of used codes: "),
    ],
)
def test_a_list_that_does_not_fit_is_refused(files, listed, kept, message):
    *source, output = files(listed, kept)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(*source, output)
    assert not output.exists()
