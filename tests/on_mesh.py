"""Both stages on meshes of eight simulated devices: one step, and what it compiled to.

    ran = run("prior", (2, 2, 2))        data x fsdp x tensor; ONE is one device
    ran.after, ran.metrics               on the host
    ran.compiled                         the program of each device
    sent(ran)                            what devices send each other in it
    first("prior", (2, 2, 2))            the first state, where it was created
    run("vqgan", ONE, variant="steady")  with another adversary, see VARIANTS

Everything is done once in a process. Sizes are such that no array of a batch has the
shape of a parameter.
"""

import functools
import re
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import tiny_run
import tiny_stage

from taming_jax.models import transformer
from taming_jax.models.vqgan import VQGAN
from taming_jax.training import prior, vqgan
from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.stage import Stage
from taming_jax.training.tokenizer import Tokenizer

BATCH, PLACES, WIDTH, LAYERS, HEADS, CLASSES = 32, 16, 24, 5, 2, 31
B1 = 0.5  # of Adam, in both stages

_HALF = tiny_stage.SECTION["model"]["encoder"] | {"channels": 8}
CONFIG = tiny_stage.CONFIG | {
    "vqgan": tiny_stage.SECTION
    | {
        "model": tiny_stage.SECTION["model"] | {"encoder": _HALF, "decoder": _HALF},
        "discriminator": {"channels": 8, "layers": 1, "norm": "batch"},
        "batch_size": BATCH,
    },
    "prior": {
        "model": {
            "width": WIDTH, "layers": LAYERS, "heads": HEADS, "mlp": "swiglu",
            "mlp_width": 40, "rotary": True, "qk_norm": True, "above": True,
            "remat": True,
        },
        "learning_rate": 1e-3,
        "optimizer": {"b1": B1},
        "steps": 4,
        "batch_size": BATCH,
    },
}  # fmt: skip


# Every option of the adversary, in two: R1 cannot be had with BatchNorm. Codes that are
# means of latents, some of which are revived in the step. A prior's orthogonal steps.
_FORM = {"channels": 8, "layers": 1}
_MEANS = {"name": "ema", "codebook_size": tiny_stage.CODEBOOK_SIZE, "dim": 4,
          "start_step": 1, "revive_every": tiny_stage.FULL,
          "revive_until": tiny_stage.FULL + 1}  # fmt: skip
VARIANTS = {
    "": {},
    "steady": {
        "adversarial_loss": "non_saturating",
        "lecam_weight": 1.0,
        "r1_weight": 1.0,
        "r1_every": 2,
        "discriminator": _FORM | {"norm": "none", "blur": 4, "spectral_norm": True},
    },
    "smooth": {
        "adaptive_weight": False,
        "lecam_weight": 1.0,
        "discriminator": _FORM | {"norm": "batch", "blur": 3, "spectral_norm": True},
    },
    "means": {
        "model": CONFIG["vqgan"]["model"] | {"quantizer": _MEANS},
        "adversarial_weight": 0.0,
    },
    "orthogonal": {"optimizer": {"b1": B1, "muon": 2.0}},
}
ONE = (1, 1, 1)
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2)]


class Built(NamedTuple):
    """A stage on a mesh, and a batch for it."""

    stage: Stage
    mesh: jax.sharding.Mesh
    batch: dict[str, np.ndarray]
    programs: "_Programs"


class Ran(NamedTuple):
    """One step of it."""

    built: Built
    after: Any
    metrics: dict
    compiled: Any


@functools.cache
def build(
    name: str, sizes: tuple[int, int, int], accumulate: int = 1, variant: str = ""
) -> Built:
    """The stage, whose programs are kept."""
    changes = VARIANTS[variant] | {"accumulate": accumulate}
    config = CONFIG | {name: CONFIG[name] | changes}
    mesh = create_mesh(Mesh(*sizes), jax.devices()[: np.prod(sizes)])
    programs, (module, make) = _Programs(), STAGES[name]
    with mock.patch.object(module, "jit", programs):
        return Built(*make(config, mesh), programs)


@functools.cache
def first(name: str, sizes: tuple[int, int, int], variant: str = "") -> Any:
    """The first state, where it was created."""
    built = build(name, sizes, variant=variant)
    with mock.patch.object(STAGES[name][0], "jit", built.programs):
        return built.stage.init()


@functools.cache
def run(
    name: str, sizes: tuple[int, int, int], accumulate: int = 1, variant: str = ""
) -> Ran:
    """A step with everything in use, from the state that one device initialises."""
    stage, mesh, batch, programs = built = build(name, sizes, accumulate, variant)
    state = jax.device_get(first(name, ONE, variant))
    if name == "vqgan":
        state = state.replace(step=state.step + tiny_stage.FULL)
        if state.adversary and "memory" in state.adversary.stats:  # LeCAM's, of a step
            memory = jax.tree.map(np.ones_like, state.adversary.stats["memory"])
            stats = state.adversary.stats | {"memory": memory}
            state = state.replace(adversary=state.adversary.replace(stats=stats))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, stage.abstract)
    with (
        mock.patch.object(STAGES[name][0], "jit", programs),
        mock.patch.object(transformer, "UNROLLED", 0),  # a loop, as in deep models
        jax.set_mesh(mesh),
    ):
        results = stage.step(
            jax.device_put(state, shardings),
            jax.device_put(batch, batch_sharding(mesh)),
        )
    return Ran(built, *jax.device_get(results), programs.compiled["step"])


def sent(ran: Ran) -> set[tuple[str, tuple[int, ...]]]:
    """(kind, shape of the result on each device) of the program's collectives."""
    text = re.sub(r"/\*.*?\*/", "", ran.compiled.as_text())
    return {
        (kind, tuple(int(n) for n in shape.split(",") if n))
        for results, kind in _COLLECTIVE.findall(text)
        for shape in re.findall(r"\[([\d,]*)\]", results)
    }


class _Programs:
    """Stands in for `jit`: compiles quickly, and keeps the programs by name."""

    def __init__(self):
        self.compiled = {}

    def __call__(
        self, function, *, convolutions=False, donate_argnums=None, **settings
    ):
        del convolutions, donate_argnums
        jitted = jax.jit(function, **settings)
        name = function.__name__

        def call(*arguments):
            if name not in self.compiled:
                self.compiled[name] = jitted.lower(*arguments).compile()
            return self.compiled[name](*arguments)

        return call


def _vqgan(config, mesh):
    side = tiny_stage.IMAGE_SIZE
    images = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), np.uint8)
    return vqgan.make_vqgan_stage(config, mesh), mesh, {"image": images}


def _prior(config, mesh):
    rng = np.random.default_rng(0)
    module = VQGAN(**tiny_run.MODEL)
    stage = prior.make_prior_stage(
        config | {"data": {"image_size": 4 * tiny_run.STRIDE}},
        mesh,
        Tokenizer(module, {}, ""),
        [str(n) for n in range(CLASSES)],
        from_codes=True,
    )
    codes = rng.integers(0, module.codebook_size, (BATCH, 4, 4), np.int32)
    labels = rng.integers(0, CLASSES, BATCH, np.int32)
    return stage, mesh, {"codes": codes, "label": labels}


STAGES = {"vqgan": (vqgan, _vqgan), "prior": (prior, _prior)}

_COLLECTIVE = re.compile(
    r"= (\S+|\(.*?\)) (all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"ragged-all-to-all|collective-permute|collective-broadcast)(?:-start)?\("
)
