from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal
from published import actnorm_completed

from taming_jax.interop.actnorm import joined
from taming_jax.interop.names import DISCRIMINATOR, DISCRIMINATOR_ACTNORM
from taming_jax.interop.tables import to_theirs
from taming_jax.losses import ADVERSARIAL_LOSSES, generator_loss
from taming_jax.models.discriminator import (
    ActNorm,
    Discriminator,
    SpectralNorm,
    blurred,
)

BATCH = "06_discriminator_batchnorm", "batch", DISCRIMINATOR
ACT = "06_discriminator_actnorm", "act", DISCRIMINATOR_ACTNORM
RECORDED = "hinge", "vanilla"
STATE = "loc", "scale", "initialized"


def original(name, norm, table):
    """The reference data, our discriminator and its weights."""
    case = golden(name)
    params = case.config["params"]
    net = Discriminator(channels=params["ndf"], layers=params["n_layers"], norm=norm)
    variables = case.variables(table)
    return case, net, actnorm_completed(variables) if norm == "act" else variables


def train(case, net, variables, kind):
    """A training pass, x then y, as recorded: what the original logged of it."""
    x, y = nhwc(case.inputs["x"]), nhwc(case.inputs["y"])

    def loss(params):
        stats = {"batch_stats": variables["batch_stats"]}
        look = partial(net.apply, train=True, mutable=["batch_stats"])
        real, after_x = look({"params": params} | stats, x)
        fake, after_y = look({"params": params} | after_x, y)
        value = ADVERSARIAL_LOSSES[kind].discriminator(real=real, fake=fake)
        return value, (real, fake, after_x, after_y)

    grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (real, fake, *after)), gradients = grad(variables["params"])
    return value, real, fake, after, gradients


@pytest.fixture(scope="module", params=[BATCH, ACT], ids=["batch", "act"])
def trained(request):
    """Reference data with our training passes, hinge and vanilla."""
    case, net, variables = original(*request.param)
    table = request.param[2]
    return (
        case,
        table,
        {k: train(case, net, variables, k) for k in RECORDED},
    )


@pytest.mark.parametrize("which", [BATCH, ACT], ids=["batch", "act"])
@pytest.mark.parametrize("image", ["x", "y"])
def test_logits_equal_the_originals_in_evaluation(which, image):
    case, net, variables = original(*which)
    logits = jax.jit(partial(net.apply, train=False))(
        variables, nhwc(case.inputs[image])
    )
    expected = nhwc(case.outputs[f"eval/logits_{image}"])
    assert_allclose(logits, expected, **case.tolerance(f"eval/logits_{image}"))


def test_logits_equal_the_originals_in_training(trained):
    case, _, passes = trained
    _, real, fake, *_ = passes["hinge"]
    expected = [nhwc(case.outputs[f"train_hinge/logits_{image}"]) for image in "xy"]
    tolerance = case.tolerance("train_hinge/logits_x", "train_hinge/logits_y")
    assert_allclose([real, fake], expected, **tolerance)


@pytest.mark.parametrize("kind", RECORDED)
def test_losses_equal_the_originals_in_training(trained, kind):
    case, _, passes = trained
    name = f"train_{kind}/loss"
    assert_allclose(passes[kind][0], case.outputs[name], **case.tolerance(name))


@pytest.mark.parametrize("kind", RECORDED)
def test_gradients_equal_the_originals(trained, kind):
    case, table, passes = trained
    gradients = to_theirs(table, {"params": passes[kind][-1]})
    for name, expected in case.outputs.items():
        if name.startswith(start := f"train_{kind}/grad/"):
            ours = gradients[name.removeprefix(start)]
            assert_allclose(ours, expected, **case.tolerance(name), err_msg=name)


@pytest.mark.parametrize("image", ["x", "y"])
def test_running_statistics_equal_the_originals_after_each_batch(image):
    case, net, variables = original(*BATCH)
    *_, after, _ = train(case, net, variables, "hinge")
    for name, ours in to_theirs(DISCRIMINATOR, after["xy".index(image)]).items():
        name = f"train_hinge/after_{image}/{name}"
        assert_allclose(ours, case.outputs[name], **case.tolerance(name), err_msg=name)


@pytest.mark.parametrize("image", ["x", "y"])
def test_actnorm_is_what_the_original_makes_of_its_first_batch(image):
    case, net, variables = original(*ACT)
    *_, after, _ = train(case, net, variables, "hinge")
    ours = joined(variables | after["xy".index(image)])
    ours = to_theirs(DISCRIMINATOR_ACTNORM, ours)
    for name in (f"main.{n}.{k}" for n in (3, 6) for k in STATE):
        recorded = f"train_hinge/after_{image}/{name}"
        expected, inexact = case.outputs[recorded], recorded in case.deviations
        tolerance = case.tolerance(recorded) if inexact else {"atol": 0}
        assert_allclose(ours[name], expected, **tolerance, err_msg=recorded)


def test_actnorm_keeps_to_its_first_batch():
    case, net, variables = original(*ACT)
    *_, (after_x, after_y), _ = train(case, net, variables, "hinge")
    jax.tree.map(assert_array_equal, after_y, after_x)


@pytest.fixture(scope="module")
def actnorm():
    """Golden 06, and what an ActNorm becomes by its first and by a second batch."""
    case = golden("06_actnorm")
    x = nhwc(case.inputs["x"])
    y, variables = ActNorm().init_with_output(jax.random.key(0), x, train=False)
    assert_array_equal(y, x)  # nothing seen, nothing done
    apply = partial(ActNorm().apply, train=True, mutable=["batch_stats"])
    y, first = apply(variables, x)
    y_second, second = apply(variables | first, x / 2 + 1)  # as recorded
    return case, y, y_second, variables | first, variables | second


def affine(variables):
    """The two halves of loc and scale together."""
    params, stats = variables["params"], variables["batch_stats"]
    return params["loc"] + stats["loc"], params["scale"] + stats["scale"]


def test_actnorm_maps_its_first_and_later_batches_as_the_originals(actnorm):
    case, y, y_second, first, _ = actnorm
    y_2d = ActNorm().apply(first, case.inputs["x2"], train=False)
    assert_allclose(y, nhwc(case.outputs["y"]), **case.tolerance("y"))
    expected = nhwc(case.outputs["y_second"])
    assert_allclose(y_second, expected, **case.tolerance("y_second"))
    assert_allclose(y_2d, case.outputs["y_2d"], **case.tolerance("y_2d"))


def test_actnorm_learns_the_originals_map_from_its_first_batch(actnorm):
    case, _, _, first, second = actnorm
    assert first["batch_stats"]["seen"] == case.outputs["initialized"]
    loc, scale = affine(first)
    assert_allclose(loc, case.outputs["loc"].ravel(), **case.tolerance("loc"))
    assert_allclose(scale, case.outputs["scale"].ravel(), **case.tolerance("scale"))
    expected = case.outputs["loc_second"].ravel()
    assert_allclose(affine(second)[0], expected, **case.tolerance("loc_second"))


def test_actnorms_map_has_the_originals_inverse_and_determinant(actnorm):
    case, y, _, first, _ = actnorm
    loc, scale = affine(first)
    reverse, places = y / scale - loc, y[0, ..., 0].size
    tolerance = case.tolerance("reverse")
    assert_allclose(reverse, nhwc(case.outputs["reverse"]), **tolerance)
    logdet = np.full(len(y), places * jnp.log(jnp.abs(scale)).sum())
    assert_allclose(logdet, case.outputs["logdet"], **case.tolerance("logdet"))


def test_after_training_logits_equal_the_originals_in_evaluation():
    case, net, variables = original(*BATCH)
    *_, (_, after), _ = train(case, net, variables, "vanilla")
    look = jax.jit(partial(net.apply, train=False))
    logits = look({"params": variables["params"]} | after, nhwc(case.inputs["x"]))
    name = "eval_after_train/logits_x"
    assert_allclose(logits, nhwc(case.outputs[name]), **case.tolerance(name))


@pytest.mark.parametrize(
    ("name", "train"), [("train_initialized", True), ("eval_after_train", False)]
)
def test_an_actnorm_that_has_seen_a_batch_adapts_to_no_other(name, train):
    case, net, variables = original(*ACT)
    for stats in variables["batch_stats"].values():
        stats["seen"] = np.ones((), bool)
    look = jax.jit(partial(net.apply, train=train))
    logits, name = look(variables, nhwc(case.inputs["x"])), f"{name}/logits_x"
    assert_allclose(logits, nhwc(case.outputs[name]), **case.tolerance(name))


def test_a_condition_is_laid_beside_the_images():
    _, net, variables = original(*BATCH)
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    beside = net.apply(
        variables, images[..., :1], train=False, condition=images[..., 1:]
    )
    assert_array_equal(beside, net.apply(variables, images, train=False))


@pytest.mark.parametrize("which", [BATCH, ACT], ids=["batch", "act"])
def test_losses_of_the_evaluated_logits_equal_the_originals(which):
    case, _, _ = original(*which)
    real, fake = (case.outputs[f"eval/logits_{image}"] for image in "xy")
    ours = [
        *(ADVERSARIAL_LOSSES[k].discriminator(real=real, fake=fake) for k in RECORDED),
        generator_loss(fake),
    ]
    names = "eval/hinge_d_loss", "eval/vanilla_d_loss", "eval/g_loss"
    expected = [case.outputs[name] for name in names]
    assert_allclose(ours, expected, **case.tolerance(*names))


def test_three_layers_see_seventy_pixels():
    net = Discriminator(channels=1, norm="none")
    x = jnp.zeros((1, 96, 96, 3))
    variables = jax.jit(partial(net.init, train=False))(jax.random.key(0), x)

    def one_logit(x):
        return net.apply(variables, x, train=False)[0, 5, 5, 0]

    rows = jnp.abs(jax.jit(jax.grad(one_logit))(x)).sum((0, 2, 3))
    assert (rows > 0).sum() == 70


def test_statistics_stand_still_where_they_may_not_move():
    _, net, variables = original(*BATCH)
    logits = net.apply(variables, jnp.ones((1, 32, 32, 3)), train=True)
    assert isinstance(logits, jax.Array)


def test_without_normalisation_there_are_no_statistics():
    net = Discriminator(channels=4, layers=1, norm="none")
    init = partial(net.init, train=True)
    variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    names = set(flatten_dict(variables, sep="/"))
    assert names == {
        f"params/conv_{n}/{part}" for n in range(3) for part in ("kernel", "bias")
    }


def test_an_unknown_normalisation_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no norm 'batchnorm'.*allowed: batch, act, none"
    ):
        Discriminator(norm="batchnorm")


@pytest.mark.parametrize("taps", [3, 4])
def test_a_blur_leaves_what_is_flat_up_to_the_border(taps):
    flat = jnp.full((1, 5, 6, 2), 0.7)
    assert_allclose(blurred(flat, taps), flat, rtol=1e-6)  # sums of weights


@pytest.mark.parametrize("taps", [3, 4])
def test_a_blur_takes_the_finest_pattern_away(taps):
    """Which half as many places would take for something else."""
    board = (-1.0) ** np.add.outer(np.arange(8), np.arange(8))[None, :, :, None]
    assert_array_equal(blurred(board, taps)[:, 2:-2, 2:-2], 0)


@pytest.mark.parametrize(
    ("taps", "row"), [(3, [0, 1, 2, 1, 0, 0]), (4, [1, 3, 3, 1, 0, 0])]
)
def test_a_blur_spreads_a_dot_binomially_and_wherever_it_is(taps, row):
    dot = np.zeros((1, 6, 7, 1), np.float32)
    dot[0, 2, 2, 0] = np.sum(row) ** 2
    spread = blurred(dot, taps)[0, :, :, 0]
    assert_array_equal(spread, np.outer(row, [*row, 0]))
    moved = blurred(np.roll(dot, 1, axis=2), taps)[0, :, :, 0]
    assert_array_equal(moved, np.roll(spread, 1, axis=1))


@pytest.mark.parametrize("taps", [3, 4])
def test_to_blur_before_a_stride_is_to_blur_after_the_convolution(taps):
    net = Discriminator(channels=4, layers=1, norm="none", blur=taps)
    x = jax.random.normal(jax.random.key(0), (1, 24, 24, 3))
    variables = net.init(jax.random.key(1), x, train=False)
    _, seen = net.apply(variables, x, train=False, capture_intermediates=True)
    (ours,) = seen["intermediates"]["conv_0"]["__call__"]
    kernel, bias = variables["params"]["conv_0"].values()
    full = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    after = blurred(full + bias, taps)[:, ::2, ::2]
    inner = slice(3, -3)  # borders are made differently
    assert_allclose(ours[:, inner, inner], after[:, inner, inner], atol=1e-5)


def spectral(rounds, kernel):
    """SpectralNorm after so many training passes: (its result, its variables)."""
    norm = SpectralNorm()
    variables = norm.init(jax.random.key(0), kernel, train=False)
    pass_ = jax.jit(partial(norm.apply, train=True, mutable=["batch_stats"]))
    for _ in range(rounds):
        y, variables = pass_(variables, kernel)
    return y, variables


KERNEL = np.random.default_rng(0).standard_normal((4, 4, 3, 8)).astype(np.float32)
SINGULAR = np.linalg.svd(KERNEL.reshape(-1, 8).astype(np.float64), compute_uv=False)


def test_a_kernels_norm_becomes_one_as_its_largest_singular_value_is_found():
    y, variables = spectral(60, KERNEL)
    # What is left of the others after r rounds is (s2 / s1)^4r of the error.
    assert (SINGULAR[1] / SINGULAR[0]) ** 240 < 1e-6
    assert_allclose(y, KERNEL / SINGULAR[0], rtol=1e-5)
    evaluated = SpectralNorm().apply(variables, KERNEL, train=False)
    assert_allclose(evaluated, y, rtol=1e-5)


def test_one_training_pass_is_one_round_of_power_iteration():
    w, u = KERNEL.reshape(-1, 8).T.astype(np.float64), np.full(8, 8**-0.5)
    y, variables = spectral(1, KERNEL)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    u = w @ v / np.linalg.norm(w @ v)
    assert_allclose(variables["batch_stats"]["u"], u, rtol=1e-5)
    assert_allclose(y, KERNEL / (u @ w @ v), rtol=1e-5)


def test_a_divided_kernel_has_no_gradient_along_itself():
    """Its length makes no difference any more."""
    _, variables = spectral(5, KERNEL)
    cotangent = np.random.default_rng(1).standard_normal(KERNEL.shape)

    def look(kernel):
        return (SpectralNorm().apply(variables, kernel, train=False) * cotangent).sum()

    gradient = jax.grad(look)(KERNEL)
    scale = np.linalg.norm(gradient) * np.linalg.norm(KERNEL)
    assert_allclose((gradient * KERNEL).sum() / scale, 0, atol=1e-6)


def test_with_spectral_norm_every_kernel_is_divided_and_bfloat16_divides_in_float32():
    net = Discriminator(channels=4, layers=1, spectral_norm=True, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables = net.init(jax.random.key(1), x, train=True)
    stats = flatten_dict(variables["batch_stats"], sep="/")
    vectors = {name: u.dtype for name, u in stats.items() if name.endswith("u")}
    kept = {f"conv_{n}/spectral_norm/u": jnp.float32 for n in range(3)}
    assert vectors == kept
    longer = jax.tree.map(lambda p: p, variables)
    for layer in ("conv_0", "conv_1", "conv_2"):
        kernel = variables["params"][layer]["kernel"]
        longer["params"][layer] |= {"kernel": 4 * kernel}  # exact in float32
    look = partial(net.apply, train=False)
    assert_array_equal(look(longer, x), look(variables, x))


@pytest.mark.parametrize("blur", [1, 2, 5, -3])
def test_a_blur_of_other_taps_is_refused(blur):
    with pytest.raises(ValueError, match=rf"no blur of {blur} taps; allowed: 0, 3, 4"):
        Discriminator(blur=blur)


@pytest.mark.devices(4)
def test_statistics_are_those_of_the_whole_sharded_batch():
    _, net, variables = original(*BATCH)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    look = jax.jit(partial(net.apply, train=True, mutable=["batch_stats"]))
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    one, four = look(variables, x), look(variables, jax.device_put(x, rows))
    # Sums over devices run in another order.
    jax.tree.map(partial(assert_allclose, rtol=1e-4, atol=1e-5), four, one)
