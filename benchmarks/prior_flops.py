"""What the 1.4B prior computes: FLOP per token of its training step, counted by XLA.

    python -m benchmarks.prior_flops [--batch 1]

The step of configs/imagenet.py is lowered from shapes, nothing is allocated and nothing
runs. XLA counts the body of a loop once, however often it runs, so the count is made of
models of one and of two layers, which have no loop: 48 layers cost the first, and 47
times what the second costs more. Beside it is what is expected,

    6 N + 12 L T D      N weights of the linear layers, L layers, T places, D width

two FLOP forward and four backward for every weight and token, and the same for the two
products of attention, over all T x T pairs: the mask saves nothing.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp

from configs import imagenet
from taming_jax.conditions import Vocabulary
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.prior import code_grid, make_init, make_transformer
from taming_jax.training.prior_step import is_kernel, make_train_step
from taming_jax.training.recipe import PriorRecipe
from taming_jax.training.sections import plain

CLASSES = 1_000


def main() -> None:
    """Counts, with and without recomputation, and prints one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    batch = parser.parse_args().batch
    for remat in (False, True):
        began = time.monotonic()
        one, two = (Step(layers, remat, batch) for layers in (1, 2))
        whole = Step(None, remat, batch)
        layers = whole.model.layers
        counted = one.flops() + (layers - 1) * (two.flops() - one.flops())
        per_token = counted / whole.tokens
        expected = 6 * whole.weights() + 12 * layers * whole.places * whole.model.width
        figures = {
            "remat": remat,
            "weights": whole.weights(),
            "gflop_per_token": round(per_token / 1e9, 3),
            "expected": round(expected / 1e9, 3),
            "ratio": round(per_token / expected, 3),
            "with_the_loop_counted_once": round(whole.flops() / whole.tokens / 1e9, 3),
            "seconds": round(time.monotonic() - began, 1),
            "jax": jax.__version__,
        }
        print(json.dumps(figures), flush=True)


class Step:
    """The card's training step by shapes; `layers` None: as many as the card has."""

    def __init__(self, layers: int | None, remat: bool, batch: int):
        card = plain(imagenet.get_config())
        tokenizer = VQGAN(**card["vqgan"]["model"])
        changes = {"remat": remat} | ({"layers": layers} if layers else {})
        card["prior"]["model"] |= changes
        self.recipe = PriorRecipe.from_config(card["prior"])
        self.vocabulary = Vocabulary(
            tokenizer.codebook_size, CLASSES, self.recipe.shared_vocabulary
        )
        self.grid = code_grid(card["data"]["image_size"], tokenizer.stride)
        self.model = make_transformer(self.recipe.model, self.vocabulary, self.grid)
        self.batch, self.places = batch, self.grid[0] * self.grid[1]
        self.tokens = batch * self.places
        init = make_init(self.recipe, self.model)
        self.state = jax.eval_shape(init, jax.random.key(0))

    def weights(self) -> int:
        """N: the entries of all kernels."""
        params = self.state.params
        sizes = jax.tree.map(
            lambda a, counts: a.size * counts, params, is_kernel(params)
        )
        return sum(jax.tree.leaves(sizes))

    def flops(self) -> float:
        """By XLA's count, of the step before the compiler's optimizations."""
        step = make_train_step(self.recipe, self.model, self.vocabulary, None, seed=0)
        codes = jax.ShapeDtypeStruct((self.batch, *self.grid), jnp.int32)
        labels = jax.ShapeDtypeStruct((self.batch,), jnp.int32)
        lowered = jax.jit(step).lower(
            self.state, {"codes": codes, "label": labels}, None
        )
        return lowered.cost_analysis()["flops"]


if __name__ == "__main__":
    main()
