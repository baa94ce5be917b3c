"""A trained prior for people: what `load_prior` gives draws pictures of what is asked.

    prior = load_prior("runs/shapes")
    images = prior.generate(key, condition)   # labels int32 [B] -> [B,H,W,C] in [-1,1]
    codes = prior.sample(key, condition)      # -> int32 [B,h,w]
    logits = prior.logits(codes, condition)   # -> float32 [B,h*w,V]

Compiled once per shape. Sample i of a key is drawn with `fold_in(key, i)`, whatever the
batch is; what goes in is checked here, before anything is compiled.
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary, codes_of, image_tokens
from taming_jax.guidance import guidance_of
from taming_jax.models.transformer import Transformer
from taming_jax.orders import make_order
from taming_jax.pretrained import requests, told_by, windowed
from taming_jax.pretrained.vqgan import PretrainedVQGAN
from taming_jax.sampling import sample_tokens
from taming_jax.training import mesh as meshes
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes, Images, to_uint8
from taming_jax.windows import Windows


class PretrainedPrior:
    """A prior with its weights and its tokenizer.

    Attributes:
      vqgan: the tokenizer, a `PretrainedVQGAN`; None: it was converted without one.
      condition_vqgan: of a condition that is a picture; None: it has none.
      module, params: the Flax module and its parameters.
      vocabulary: which tokens are codes and which are labels; its `told` are the
        conditions by name.
      class_names: of labels 0, 1, ...; empty where it is told something else.
      told: what its condition is: "label", "none", "depth", "label and boxes"; of a
        published prior what its authors call it, whose tokens are then given.
      about: what config.json says of its condition, see `interop.prior_form`; {}: its
        `vocabulary` says all.
      grid: (h, w) of the codes that it was trained on.
      any_grid: whether it takes any grid that it has places for.
      order: int32 [h * w]; token i is the code at place `order[i]`, counted by rows.
      config, directory, step: as in `PretrainedVQGAN`.
    """

    def __init__(
        self,
        module: Transformer,
        params: Mapping[str, Any],
        vocabulary: Vocabulary,
        *,
        vqgan: PretrainedVQGAN | None,
        condition_vqgan: PretrainedVQGAN | None = None,
        recipe: PriorRecipe,
        class_names: Sequence[str],
        told: str,
        about: Mapping[str, Any] = MappingProxyType({}),
        any_grid: bool = False,
        config: Mapping[str, Any],
        directory,
        step: int,
        mesh: jax.sharding.Mesh | None = None,
    ):
        self.module, self.params, self.vocabulary = module, params, vocabulary
        self.vqgan, self.condition_vqgan = vqgan, condition_vqgan
        self.class_names, self._recipe = tuple(class_names), recipe
        self.config, self.directory, self.step = config, directory, step
        self.told, self.about, self.any_grid = told, about, any_grid
        self.grid = module.grid
        self._mesh, self._order = mesh, module.order
        self.order = make_order(module.order or "raster", module.grid)

        def logits(params, prefix, codes):
            tokens = image_tokens(codes, module.order)
            sequence = jnp.concatenate([prefix, tokens], axis=1)[:, :-1]
            return module.apply({"params": params}, sequence)[:, prefix.shape[1] - 1 :]

        self._logits = jit(logits)

    @property
    def default_settings(self) -> dict[str, Any]:
        """The recipe's way to draw, as keywords of `sample`."""
        return dataclasses.asdict(self._recipe.sampling)

    def logits(self, codes: Codes, condition: Any = None) -> jax.Array:
        """Teacher-forced logits, float32 [B, h * w, V] in the order of tokens.

        Args:
          codes: int32 [B, h, w].
          condition: what this prior is told, in the form that `conditions.kinds` and
            `conditions.direct` say: labels int32 [B] (LlamaGen's has one more: of no
            class), a map [B, H, W, C] as its tokenizer takes it, objects by boxes; of
            several a dict by name. What a published prior is told are tokens [B, n],
            codes [B, h', w'], or a map if its tokenizer came along, in the picture's
            proportions; None in an unconditional prior.

        Raises:
          ValueError: for codes or a condition that this prior does not have, and for a
            map whose tokenizer is missing.
        """
        grid = None if self.any_grid else self.grid
        codes = requests.grids(codes, grid, range(self.vocabulary.codes))
        prefix = self._prefix(condition, codes.shape[1:])
        if prefix is None:
            prefix = self.vocabulary.no_label(len(codes))
        if len(prefix) != len(codes):
            raise ValueError(
                f"codes of {len(codes)} pictures and a condition of {len(prefix)}: "
                "give one for each"
            )
        requests.check_places(codes.shape[1:], prefix.shape[1], self.module.length)
        return self._logits(self.params, prefix, codes)

    def sample(
        self,
        key,
        condition: Any = None,
        batch: int | None = None,
        shape: int | tuple[int, int] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        guidance_schedule: str = "constant",
        given: Codes | None = None,
        greedy: bool = False,
        window: int | tuple[int, int] | None = None,
        window_stride: int = 1,
        window_center: int | tuple[int, int] | None = None,
    ) -> Codes:
        """Draws grids of codes, int32 [B, h, w].

        Args:
          key: one key, or keys [B]; of one key, sample i is drawn with fold_in(key, i).
          condition: as `logits` takes it.
          batch: B; needed only without a condition, keys or given codes.
          shape: (h, w), any, or one number for both; None: as trained. Where it is not
            what the prior has positions for, codes are drawn through a window that
            slides over them, and the condition is of the whole picture: see
            docs/sampling.md.
          temperature: above 0.
          top_k: draw among the k likeliest codes (and those equal to the last of them).
          top_p: draw among the likeliest codes that together have this probability.
          guidance: g in uncond + g (cond - uncond) of the logits; 1: none.
          guidance_schedule: how it goes along the sequence, see `guidance`: "constant",
            "linear", "power-cosine:2.75" or "interval:64", for instance.
          given: int32 [B, h, w], codes to be forced in place; -1 where one is drawn.
            A warning, `requests.LateCodes`, says if some come too late to be known.
          greedy: always the likeliest code.
          window: rows and columns of the window, in codes; None: the prior's grid.
          window_stride: by how many codes it moves. 1 is the paper's way; more takes
            fewer operations, about as many times as the square of it, and gives other
            pictures.
          window_center: how many of its rows and columns come before the place that is
            drawn; None: half of them, as in the paper's script.

        Raises:
          ValueError: for what this prior cannot do; it says what it can.
        """
        shape, given = self._grid_of(shape, given)
        windows = windowed.asked(self, shape, window, window_stride, window_center)
        knows_nothing = self._recipe.label_dropout > 0
        requests.check_guidance(guidance, guidance_schedule, knows_nothing)
        told = self._told(condition, shape, windows)
        keys = requests.keys(key, batch, told, given)
        if given is not None:
            order = None if windows else self._order
            if late := requests.late_codes(given, order):
                warnings.warn(late, requests.LateCodes, stacklevel=2)
        guided, count = guidance != 1, math.prod(shape)
        strength = guidance_of(guidance, guidance_schedule, count) if guided else 1.0
        settings = {
            "guided": guided,
            "given": given,
            "guidance": strength,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "greedy": greedy,
        }
        if windows:
            mesh = self._mesh
            return windowed.draw(self, keys, told, windows, mesh=mesh, **settings)
        return self._draw(keys, told, shape, **settings)

    def generate(self, key, condition: Any = None, **settings) -> Images:
        """`sample`, then decode: images [B, H, W, C] in [-1, 1]; keywords as there.

        Pictures of other sizes, if they are large, are decoded tile by tile.

        Raises:
          ValueError: as `sample`, and if there is no tokenizer to decode with.
        """
        vqgan = self.tokenizer()
        codes = self.sample(key, condition, **settings)
        if codes.shape[1:] == self.grid:
            return vqgan.decode(codes)
        return windowed.decode(vqgan, codes)

    def pictures(self, key, condition: Any = None, **settings) -> np.ndarray:
        """As `generate`, but uint8 [B, H, W, C] in [0, 255], on the host.

        What large pictures take besides are some rows of tiles, in float32.
        """
        vqgan = self.tokenizer()
        codes = self.sample(key, condition, **settings)
        if codes.shape[1:] == self.grid:
            return to_uint8(vqgan.decode(codes))
        return windowed.pictures(vqgan, codes)

    def tokenizer(self) -> PretrainedVQGAN:
        """The tokenizer; raises ValueError where the prior came without one."""
        if self.vqgan is None:
            raise ValueError(
                f"{self.directory} was converted without its tokenizer, so that it "
                "gives codes (sample) and no pictures: convert it again with "
                "--tokenizer DIR, where DIR has the tokenizer, converted"
            )
        return self.vqgan

    def _grid_of(self, shape, given) -> tuple[tuple[int, int], Codes | None]:
        """The grid that is to be drawn, and the codes that are given of it."""
        if shape is not None:
            shape = requests.sides("shape", shape)
        if given is None:
            return shape or self.grid, None
        grid = None if self.any_grid else shape or self.grid
        given = requests.grids(given, grid, range(-1, self.vocabulary.codes))
        shape = shape or given.shape[1:]
        requests.check_given(given.shape[1:], shape)
        return shape, given

    def _draw(self, keys, told, shape, *, guided, given, **settings) -> Codes:
        """Codes int32 [B, h, w] of a grid that there are positions for, by keys [B]."""
        nothing = self.vocabulary.no_label(len(keys))
        prefix = nothing if told is None else told
        unguided = nothing if guided else None
        requests.check_places(shape, prefix.shape[1], self.module.length)
        given = None if given is None else image_tokens(given, self._order)
        keys, prefix, unguided, given = meshes.placed(
            (keys, prefix, unguided, given), self._mesh
        )
        tokens = sample_tokens(
            self.module,
            self.params,
            keys,
            prefix,
            count=math.prod(shape),
            codes=self.vocabulary.codes,
            unguided_prefix=unguided,
            given=given,
            **settings,
        )
        return codes_of(tokens, shape, self._order)

    def _told(self, condition, shape, windows: Windows | None):
        """Condition tokens, or, with windows, what each of them is told."""
        if windows is None:
            return self._prefix(condition, shape)
        as_tokens = self._recipe.condition == "tokens"
        return windowed.told(self, condition, windows, as_tokens=as_tokens)

    def _prefix(self, given, shape) -> jax.Array | None:
        """Condition tokens int32 [B,n] of what is asked for; None without a condition.

        shape: (h, w) of the pictures, in codes.

        Raises:
          ValueError: for what this prior cannot be told.
        """
        if self._recipe.condition == "tokens":
            return jnp.asarray(told_by.tokens_told(given, self, shape))
        asked = self.vocabulary.checked(given)
        return None if asked is None else self.vocabulary.asked_tokens(asked)
