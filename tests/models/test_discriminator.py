"""The discriminator against the original's, in training and in evaluation."""

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
from taming_jax.models.discriminator import Discriminator

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
