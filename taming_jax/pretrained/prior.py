"""A trained prior for people: `load_prior(path)` draws pictures of what is asked for.

    prior = load_prior("runs/shapes")
    images = prior.generate(key, condition)   # labels int32 [B] -> [B,H,W,C] in [-1,1]
    codes = prior.sample(key, condition)      # -> int32 [B,h,w]
    logits = prior.logits(codes, condition)   # -> float32 [B,h*w,V]

Compiled once per shape. Sample i of a key is drawn with `fold_in(key, i)`, whatever the
batch is; what goes in is checked here, before anything is compiled.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from taming_jax import stored
from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary, codes_of, image_tokens
from taming_jax.guidance import guidance_of
from taming_jax.models.positions import at_grid
from taming_jax.models.transformer import Transformer
from taming_jax.orders import is_raster, make_order
from taming_jax.pretrained import requests, told_by
from taming_jax.pretrained.vqgan import PretrainedVQGAN, load_vqgan
from taming_jax.sampling import sample_tokens
from taming_jax.training import mesh as meshes
from taming_jax.training.prior import make_transformer
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes, Images


def load_prior(
    path, dtype=None, mesh=None, *, best: bool = False, grid=None
) -> "PretrainedPrior":
    """Loads a prior's averaged (EMA) weights, and its tokenizer with it.

    Args:
      path: a run's directory W, its W/prior, an exported or converted model, or a
        bundled name.
      dtype: of activations and weights, e.g. "bfloat16"; None: as it was trained. An
        exported model is read into it array by array.
      mesh: a `jax.sharding.Mesh` with axes data, fsdp and tensor; None: one device.
      best: the checkpoint of the lowest validation loss instead of the newest.
      grid: (h, w) of the codes, where another is wanted than it was trained on: what
        it knows of positions is then interpolated, see `models.positions.at_grid`.

    Raises:
      ValueError: if there is no trained prior, if its tokenizer is gone or was trained
        again since, if the mesh's `tensor` does not divide its heads, or if its order
        does not fit the grid. A prior that was converted without a tokenizer has none.
    """
    given = None if dtype is None else jnp.dtype(dtype)
    record = stored.read_record(path, "prior")
    recipe, facts = PriorRecipe.from_config(record["config"]["prior"]), record["facts"]
    settings = dict(recipe.model)
    if given is not None:
        settings["dtype"] = given.name
    told = {"kind": recipe.condition, "start": 0, **facts.get("condition", {})}
    condition_vqgan = told_by.condition_tokenizer(path, recipe, told, dtype, mesh)
    vocabulary = Vocabulary(
        facts["codes"],
        shared=recipe.shared_vocabulary,
        start=told["start"],
        told=told_by.conditions_of(facts["class_names"], told, condition_vqgan),
    )
    module = make_transformer(settings, vocabulary, tuple(facts["grid"]), recipe.order)
    if mesh is not None:
        meshes.check_heads(module.kv_heads or module.heads, mesh)
    model = stored.read(
        path,
        "prior",
        best=best,
        dtype=given or np.float32,
        put=lambda name, array: _placed(name, array, mesh),
    )
    params = model.variables["params"]
    if grid is not None and tuple(grid) != module.grid:
        order = make_order(recipe.order, grid)
        module, params = at_grid(
            module, params, tuple(grid), None if is_raster(order) else order
        )
    fingerprint, vqgan = facts["tokenizer"]["fingerprint"], None
    if fingerprint is not None:
        place = recipe.tokenizer or model.directory.parent
        vqgan = load_vqgan(place, dtype, mesh, stage="vqgan")
        told_by.check_tokenizer(model.directory, fingerprint, vqgan)
    return PretrainedPrior(
        module,
        params,
        vocabulary,
        vqgan=vqgan,
        condition_vqgan=condition_vqgan,
        recipe=recipe,
        class_names=facts["class_names"],
        told=told["kind"],
        any_grid=facts.get("any_grid", False),
        config=model.config,
        directory=model.directory,
        step=model.step,
        mesh=mesh,
    )


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
        self.told, self.any_grid, self.grid = told, any_grid, module.grid
        self._mesh = mesh
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
            codes [B, h', w'], or a map if its tokenizer came along; None in an
            unconditional prior.

        Raises:
          ValueError: for codes or a condition that this prior does not have.
        """
        codes = self._codes(codes, range(self.vocabulary.codes))
        prefix = self._prefix(condition)
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
        shape: tuple[int, int] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        guidance_schedule: str = "constant",
        given: Codes | None = None,
        greedy: bool = False,
    ) -> Codes:
        """Draws grids of codes, int32 [B, h, w].

        Args:
          key: one key, or keys [B]; of one key, sample i is drawn with fold_in(key, i).
          condition: as `logits` takes it.
          batch: B; needed only without a condition, keys or given codes.
          shape: (h, w); None: as trained, or as the given codes are.
          temperature: above 0.
          top_k: draw among the k likeliest codes (and those equal to the last of them).
          top_p: draw among the likeliest codes that together have this probability.
          guidance: g in uncond + g (cond - uncond) of the logits; 1: none.
          guidance_schedule: how it goes along the sequence, see `guidance`: "constant",
            "linear", "power-cosine:2.75" or "interval:64", for instance.
          given: int32 [B, h, w], codes to be forced in place; -1 where one is drawn.
            A warning, `requests.LateCodes`, says if some come too late to be known.
          greedy: always the likeliest code.

        Raises:
          ValueError: for what this prior cannot do; it says what it can.
        """
        prefix = self._prefix(condition)
        if given is not None:
            given = self._codes(given, range(-1, self.vocabulary.codes))
            shape = given.shape[1:] if shape is None and self.any_grid else shape
        stride = None if self.vqgan is None else self.vqgan.stride
        if not self.any_grid:
            requests.check_shape(shape, self.grid, stride)
        shape = self.grid if shape is None else tuple(shape)
        guided = guidance != 1
        requests.check_guidance(
            guidance, guidance_schedule, self._recipe.label_dropout > 0
        )
        keys, batch = requests.keys(key, batch, prefix, given)
        if prefix is None:
            prefix = self.vocabulary.no_label(batch)
        requests.check_places(shape, prefix.shape[1], self.module.length)
        if given is not None:
            requests.check_given(given.shape[1:], shape)
            if late := requests.late_codes(given, self.module.order):
                warnings.warn(late, requests.LateCodes, stacklevel=2)
            given = image_tokens(given, self.module.order)
        unguided = self.vocabulary.no_label(batch) if guided else None
        keys, prefix, unguided, given = meshes.placed(
            (keys, prefix, unguided, given), self._mesh
        )
        count = shape[0] * shape[1]
        tokens = sample_tokens(
            self.module,
            self.params,
            keys,
            prefix,
            count=count,
            codes=self.vocabulary.codes,
            unguided_prefix=unguided,
            given=given,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance_of(guidance, guidance_schedule, count) if guided else 1.0,
            greedy=greedy,
        )
        return codes_of(tokens, shape, self.module.order)

    def generate(self, key, condition: Any = None, **settings) -> Images:
        """`sample`, then decode: images [B, H, W, C] in [-1, 1]; keywords as there.

        Raises:
          ValueError: as `sample`, and if there is no tokenizer to decode with.
        """
        decode = self.tokenizer().decode
        return decode(self.sample(key, condition, **settings))

    def tokenizer(self) -> PretrainedVQGAN:
        """The tokenizer; raises ValueError where the prior came without one."""
        if self.vqgan is None:
            raise ValueError(
                f"{self.directory} was converted without its tokenizer, so that it "
                "gives codes (sample) and no pictures: convert it again with "
                "--tokenizer DIR, where DIR has the tokenizer, converted"
            )
        return self.vqgan

    def _codes(self, given, allowed: range) -> np.ndarray:
        return requests.grids(given, None if self.any_grid else self.grid, allowed)

    def _prefix(self, given) -> jax.Array | None:
        """Condition tokens int32 [B,n] of what is asked for; None without a condition.

        Raises:
          ValueError: for what this prior cannot be told.
        """
        if self._recipe.condition == "tokens":
            given = told_by.codes_of_map(
                given, self.condition_vqgan, self.module.prefix
            )
            allowed = range(self.module.vocab_size)
            return jnp.asarray(requests.tokens(given, self.told, allowed))
        asked = self.vocabulary.checked(given)
        return None if asked is None else self.vocabulary.asked_tokens(asked)


def _placed(name: str, array: np.ndarray, mesh) -> jax.Array:
    """An array of the weights on its devices, there before the next one is read."""
    tree = unflatten_dict({name: array}, sep="/")
    places = None if mesh is None else meshes.state_shardings(tree, mesh)
    return jax.block_until_ready(jax.tree.leaves(jax.device_put(tree, places))[0])
