"""`load_vqgan`: what a trained tokenizer promises to people, and what it refuses."""

import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from jax.sharding import AxisType

import taming_jax
from taming_jax.compilation import jit
from taming_jax.models.vqgan import VQGAN


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    psnr = {3: 20.0, 5: 25.0, 7: 22.0}
    return tiny_run.write_run(tmp_path_factory.mktemp("runs") / "tiny", psnr=psnr)


@pytest.fixture(scope="module")
def vqgan(workdir):
    return taming_jax.load_vqgan(workdir)


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def random_codes(*shape, seed=0):
    codes = np.random.default_rng(seed).integers(0, tiny_run.CODEBOOK_SIZE, shape)
    return codes.astype(np.int32)


# What it gives


@pytest.mark.parametrize("size", [(16, 16), (18, 23), (4, 31)])
def test_a_code_stands_for_a_square_of_stride_pixels(vqgan, size):
    height, width = size
    codes = vqgan.encode(random_images(2, height, width, 3))
    assert (codes.shape, codes.dtype) == ((2, height // 4, width // 4), np.int32)


def test_decoding_gives_whole_images_in_range(vqgan):
    images = vqgan.decode(random_codes(2, 3, 5))
    assert (images.shape, images.dtype) == ((2, 12, 20, 3), np.float32)
    assert np.abs(images).max() <= 1


def test_the_module_does_not_clip(vqgan):
    codes = random_codes(2, 3, 5)
    variables = {"params": vqgan.params}
    unclipped = jit(lambda c: vqgan.module.apply(variables, c, method="decode"))(codes)
    assert np.abs(unclipped).max() > 1  # else the test above shows nothing
    np.testing.assert_array_equal(vqgan.decode(codes), np.clip(unclipped, -1, 1))


def test_a_reconstruction_is_the_decoded_codes(vqgan):
    images = random_images(2, 16, 16, 3)
    np.testing.assert_array_equal(
        vqgan.reconstruct(images), vqgan.decode(vqgan.encode(images))
    )


def test_codes_are_those_of_the_saved_weights(vqgan):
    images = random_images(2, 16, 16, 3)
    variables = {"params": tiny_run.random_params(7)}  # the newest step
    model = VQGAN(**tiny_run.MODEL)
    expected = jit(lambda x: model.apply(variables, x, method="encode").codes)(images)
    np.testing.assert_array_equal(vqgan.encode(images), expected)


def test_each_shape_is_compiled_once(vqgan):
    traced = []
    module = vqgan.module

    class Counting(VQGAN):
        def encode(self, images, **options):
            traced.append(images.shape)
            return super().encode(images, **options)

    counting = type(vqgan)(
        Counting(**tiny_run.MODEL),
        {"params": vqgan.params},
        config=vqgan.config,
        directory=vqgan.directory,
        step=vqgan.step,
        fingerprint=vqgan.fingerprint,
    )
    assert module.stride == counting.stride
    for height in (16, 20, 16, 20):
        counting.encode(random_images(1, height, 16, 3))
    assert traced == [(1, 16, 16, 3), (1, 20, 16, 3)]


# Where it is found


def test_the_stage_directory_is_as_good_as_the_run(workdir, vqgan):
    images = random_images(1, 16, 16, 3)
    loaded = taming_jax.load_vqgan(workdir / "vqgan")
    np.testing.assert_array_equal(loaded.encode(images), vqgan.encode(images))


def test_the_newest_checkpoint_is_taken(vqgan):
    assert vqgan.step == 7


def test_the_best_checkpoint_is_taken_if_asked(workdir):
    assert taming_jax.load_vqgan(workdir, best=True).step == 5


def test_a_place_without_a_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere'.*does not exist.*W or W/vqgan"):
        taming_jax.load_vqgan(tmp_path / "nowhere")


def test_a_directory_of_something_else_is_named(tmp_path):
    with pytest.raises(ValueError, match="it has no trained vqgan"):
        taming_jax.load_vqgan(tmp_path)


# How it is held


def test_half_precision_leaves_the_codebook_alone(workdir):
    params = taming_jax.load_vqgan(workdir, dtype="bfloat16").params
    dtypes = {
        part: {x.dtype.name for x in jax.tree.leaves(params[part])} for part in params
    }
    assert dtypes.pop("quantizer") == {"float32"}
    assert set.union(*dtypes.values()) == {"bfloat16"}


def test_half_precision_gives_nearly_the_same_images(workdir, vqgan):
    codes = random_codes(2, 4, 4)
    images = taming_jax.load_vqgan(workdir, dtype=jax.numpy.bfloat16).decode(codes)
    # Eight bits of mantissa through nine convolutions; unrelated weights differ by 0.5.
    assert np.abs(images - vqgan.decode(codes)).mean() < 0.02


def test_an_unknown_dtype_is_refused(workdir):
    with pytest.raises(ValueError, match=r"'bf16'.*bfloat16"):
        taming_jax.load_vqgan(workdir, dtype="bf16")


@pytest.mark.devices(4)
def test_a_mesh_changes_where_things_are_and_not_what(tmp_path):
    workdir = tiny_run.write_run(tmp_path / "run")
    mesh = jax.make_mesh(
        (2, 2, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    sharded, whole = (taming_jax.load_vqgan(workdir, mesh=m) for m in (mesh, None))
    kernel = sharded.params["decoder"]["conv_in"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 2
    for batch in (4, 3):  # 3 cannot be split over four devices, and is replicated
        codes = random_codes(batch, 4, 4)
        np.testing.assert_allclose(
            sharded.decode(codes),
            whole.decode(codes),
            atol=1e-5,  # sums over shards are taken in another order
        )


# What it refuses


def test_images_in_0_to_255_are_refused(vqgan):
    images = np.full((1, 16, 16, 3), 255, np.float32)
    with pytest.raises(ValueError, match=r"reach 255.*\[-1, 1\].*/ 127.5 - 1"):
        vqgan.encode(images)


def test_images_slightly_out_of_range_are_encoded(vqgan):
    assert vqgan.encode(1.1 * random_images(1, 16, 16, 3)).shape == (1, 4, 4)


def test_images_with_nan_are_refused(vqgan):
    with pytest.raises(ValueError, match="reach nan"):
        vqgan.encode(np.full((1, 16, 16, 3), np.nan, np.float32))


def test_uint8_pictures_are_refused(vqgan):
    with pytest.raises(ValueError, match=r"uint8.*from_uint8"):
        vqgan.encode(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 16, 16, 4), (1, 3, 16, 16)])
def test_images_of_another_rank_or_layout_are_refused(vqgan, shape):
    with pytest.raises(ValueError, match=r"shape.*3\]"):
        vqgan.encode(random_images(*shape))


def test_images_smaller_than_a_code_are_refused(vqgan):
    with pytest.raises(ValueError, match=r"3 x 16 pixels.*4"):
        vqgan.encode(random_images(1, 3, 16, 3))


@pytest.mark.parametrize("code", [-1, tiny_run.CODEBOOK_SIZE])
def test_codes_outside_the_codebook_are_refused(vqgan, code):
    with pytest.raises(ValueError, match=rf"{code}.*0 to 15"):
        vqgan.decode(np.full((1, 2, 2), code, np.int32))


@pytest.mark.parametrize("codes", [np.zeros((1, 2, 2)), np.zeros((2, 2), np.int32)])
def test_what_is_no_grid_of_codes_is_refused(vqgan, codes):
    with pytest.raises(ValueError, match=r"int32 \[B, h, w\]"):
        vqgan.decode(codes)


# The package


def test_loading_and_decoding_need_no_tensorflow(workdir):
    program = f"""
import sys
sys.modules["tensorflow"] = None  # importing it raises ImportError
import numpy as np, taming_jax
vqgan = taming_jax.load_vqgan({str(workdir)!r})
vqgan.reconstruct(np.zeros((1, 16, 16, 3), np.float32))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_importing_takes_less_than_two_seconds():
    program = """
import sys, time
start = time.process_time()  # of this process alone: other work does not count
import taming_jax
taming_jax.load_vqgan
assert "tensorflow" not in sys.modules
print(time.process_time() - start)
"""
    seconds = subprocess.check_output([sys.executable, "-c", program], timeout=120)
    assert float(seconds) < 2


def test_the_version_is_the_distributions():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    assert taming_jax.__version__ == project["version"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="load_vqgam"):
        _ = taming_jax.load_vqgam
