"""The first stage beside PyTorch: a training step, encoding and decoding, by turns.

    python -m benchmarks.first_stage [--config shapes] [--rounds 10] [--batch 8]
    python -m benchmarks.first_stage --device-report [--config imagenet]

Our step is the recipe's own, PyTorch's (`torch_first_stage`) has the same layers and
losses in the original's order, with a second forward pass. Both have the same weights,
drawn at random, and before anything is timed they must agree: in the codes, in what is
reconstructed, and, with ours in the original's order too, in every term of the losses
before and after an update. Times are of one process and by turns; `times_torch` is the
median of the rounds' ratios, so that other work on the machine strikes both. On a busy
machine PyTorch's threads wait for one another: there use one core (`taskset -c 0`) and
read the processor's time, `_cpu`.

--device-report is for accelerators, see `first_stage_device`.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import first_stage_device
from benchmarks.first_stage_cases import CASES, Case
from taming_jax.compilation import jit, keep_programs
from taming_jax.interop.layout import layout
from taming_jax.interop.tables import to_theirs
from taming_jax.models.perceptual import shapes_of
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.vqgan import make_discriminator, make_init
from taming_jax.training.vqgan_step import make_train_step

# Of the terms of the first step, relative: 1e-4 were seen in an adaptive weight. And of
# the second: Adam's first update is the sign of the gradient, and where that is next to
# nothing rounding decides.
CLOSE = (1e-3, 3e-2)


def main() -> None:
    """Checks, measures, and prints JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="shapes", choices=CASES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, help="pictures; default: the case's")
    parser.add_argument("--only", choices=("step", "encode", "decode"))
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's layout")
    parser.add_argument("--device-report", action="store_true")
    parser.add_argument("--in-torch", action="store_true", help="the report is of it")
    parser.add_argument("--largest", type=int, default=1_024, help="batch of a report")
    arguments = parser.parse_args()
    keep_programs()
    case = CASES[arguments.config]()
    if batch := arguments.batch:
        section = {**case.section, "batch_size": batch}
        case = case._replace(section=section, batch=batch)
    if arguments.device_report and arguments.in_torch:
        return first_stage_device.report_torch(case, Ours, Torch)
    if arguments.device_report:
        return first_stage_device.report(case, Ours, arguments.largest)

    ours = Ours(case)
    about = {
        "config": arguments.config,
        "batch": case.batch,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    ways = {"ours": ours}
    try:
        ways["torch"] = Torch(case, ours, channels_last=arguments.channels_last)
    except ImportError:
        about["torch"] = "not installed"
    else:
        about["torch"] = version("torch")
        about["channels_last"] = arguments.channels_last
        about |= agreement(case, ours, ways["torch"])
    print(json.dumps(about), flush=True)
    for what in (arguments.only,) if arguments.only else ("step", "encode", "decode"):
        calls = {name: getattr(way, what) for name, way in ways.items()}
        print(json.dumps({"what": what} | measure(calls, case.batch, arguments.rounds)))
    return None


class Ours:
    """Our first stage on a batch; every call returns when its result is there."""

    def __init__(self, case: Case, section: Mapping[str, Any] | None = None):
        self.case, section = case, section or case.section
        self.recipe = recipe = VQGANRecipe.from_config(section)
        self.module = VQGAN(**recipe.model)
        discriminator = make_discriminator(recipe)
        init = make_init(recipe, self.module, discriminator)
        state = jit(init)(jax.random.key(0))
        self.state = state.replace(step=jnp.int32(case.step))
        wanted = recipe.loss.perceptual_weight > 0
        self.perceptual = random_lpips() if wanted else {}
        shape = (case.batch, case.size, case.size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.batch = {"image": jnp.asarray(pixels)}
        self.images = jnp.asarray(recipe.input.read(self.batch["image"]))
        step = make_train_step(recipe, self.module, discriminator, 0, case.phase)
        self._step = jit(step, convolutions=True, donate_argnums=0)
        compiled = partial(jit, convolutions=True)
        self._encode = compiled(partial(encode_images, self.module))
        self._decode = compiled(partial(decode_codes, self.module))
        self.codes = self.encode()

    def step(self) -> dict[str, float]:
        """One training step; its metrics."""
        self.state, metrics = self._step(self.state, self.batch, self.perceptual)
        return jax.device_get(metrics)

    def compiled_step(self):
        """The compiled program of the step, which can be asked what it costs."""
        return self._step.lower(self.state, self.batch, self.perceptual).compile()

    def encode(self) -> np.ndarray:
        """Codes int32 [B,h,w] of the images."""
        return np.asarray(self._encode(self.variables, self.images))

    def decode(self) -> np.ndarray:
        """Images float32 [B,H,W,C] of the codes."""
        return np.asarray(self._decode(self.variables, self.codes))

    @property
    def variables(self) -> dict:
        """Of the autoencoder."""
        return {"params": self.state.params, "codebook": self.state.codebook}

    def tensors(self) -> dict[str, np.ndarray]:
        """Everything by the original's names."""
        tree = {"generator": {"params": self.state.params}}
        if self.state.adversary:
            params, stats = self.state.adversary.params, self.state.adversary.stats
            tree["discriminator"] = {"params": params, **stats}
        if self.perceptual:
            tree["perceptual"] = self.perceptual
        fields = self.recipe.discriminator
        return to_theirs(layout(self.recipe.model, fields, "original"), tree)


class Torch:
    """The same in PyTorch, which must be installed: equal images and weights."""

    def __init__(self, case: Case, ours: Ours, **settings):
        import torch

        from benchmarks.torch_first_stage import TorchFirstStage

        self.case, self.no_grad = case, torch.no_grad
        self.twin = TorchFirstStage(ours.recipe, ours.tensors(), **settings)
        self.images = self.twin.put(np.transpose(ours.images, (0, 3, 1, 2)))
        self.codes = torch.from_numpy(ours.codes.astype(np.int64))
        self.codes = self.codes.to(self.twin.device)

    def step(self) -> dict[str, float]:
        """Both halves of a step; its terms."""
        terms = self.twin.step(self.images, self.case.phase)
        return {name: float(term) for name, term in terms.items()}

    def encode(self) -> np.ndarray:
        """Codes int64 [B,h,w]."""
        with self.no_grad():
            return self.twin.codes_of(self.images).cpu().numpy()

    def decode(self) -> np.ndarray:
        """Images float32 [B,C,H,W]."""
        with self.no_grad():
            return self.twin.images_of(self.codes).cpu().numpy()


def agreement(case: Case, ours: Ours, theirs: Torch) -> dict[str, float]:
    """How far both are apart; the steps that are compared leave ours as it was.

    Raises:
      AssertionError: if they do not compute the same.
    """
    same = float((ours.encode() == theirs.encode()).mean())
    apart = np.abs(ours.decode().transpose(0, 3, 1, 2) - theirs.decode())
    section = dict(case.section)
    if case.phase.judged and not case.phase.frozen:
        section["alternating"] = True
    original = Ours(case, section)
    worst = []
    for _ in CLOSE:
        metrics, terms = original.step(), theirs.step()
        worst.append(max(abs(float(metrics[n]) / terms[n] - 1) for n in terms))
    found = {"same_codes": same, "largest_difference": float(apart.max())}
    found |= {"largest_relative_differences_of_terms": worst}
    close = [far < limit for far, limit in zip(worst, CLOSE, strict=True)]
    if same < 0.999 or apart.max() > 1e-3 or not all(close):
        raise AssertionError(f"both should compute the same: {found}")
    return found


def measure(calls: Mapping[str, Callable], batch: int, rounds: int) -> dict:
    """Milliseconds of wall and of processors, and images per second, by turns."""
    for call in calls.values():
        call(), call()
    taken = {name: [] for name in calls}  # of (wall, processors)
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter(), time.process_time()
            call()
            ended = time.perf_counter(), time.process_time()
            taken[name].append(np.subtract(ended, began))
    taken = {name: np.array(pairs) for name, pairs in taken.items()}
    line = {}
    for name, pairs in taken.items():
        wall, cpu = np.median(pairs, axis=0)
        line[f"{name}_ms"] = round(1e3 * wall, 2)
        line[f"{name}_best_ms"] = round(1e3 * pairs[:, 0].min(), 2)
        line[f"{name}_cpu_ms"] = round(1e3 * cpu, 2)
        line[f"{name}_images_per_s"] = round(batch / wall, 2)
    if "torch" in taken:
        ratios = np.median(taken["torch"] / taken["ours"], axis=0)
        best = taken["torch"].min(0) / taken["ours"].min(0)
        for name, values in (("times_torch", ratios), ("times_torch_best", best)):
            line |= {name: round(values[0], 2), f"{name}_cpu": round(values[1], 2)}
    return line


def random_lpips() -> dict:
    """Weights of VGG16 and the heads, as large as trained ones on the whole."""
    rng, shapes = np.random.default_rng(1), shapes_of()

    def drawn(leaf):
        if leaf.ndim == 1:
            return np.zeros(leaf.shape, np.float32)
        scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(scale)

    heads = {i: rng.random(leaf.size, np.float32) / leaf.size
             for i, leaf in shapes["heads"].items()}  # fmt: skip
    vgg = jax.tree.map(drawn, shapes["vgg"])
    return jax.tree.map(jnp.asarray, {"vgg": vgg, "heads": heads})


if __name__ == "__main__":
    main()
