"""`load_prior(path)`: a trained prior, its weights and its tokenizers.

a run's directory, an exported or converted model, a name -> PretrainedPrior
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from taming_jax import stored
from taming_jax.conditions import Vocabulary
from taming_jax.models.fields import dtype_named
from taming_jax.models.positions import at_grid
from taming_jax.orders import is_raster, make_order
from taming_jax.pretrained import requests, told_by
from taming_jax.pretrained.prior import PretrainedPrior
from taming_jax.pretrained.vqgan import load_vqgan
from taming_jax.training import mesh as meshes
from taming_jax.training.prior import make_transformer
from taming_jax.training.recipe import PriorRecipe


def load_prior(
    path, dtype=None, mesh=None, *, best: bool = False, grid=None
) -> PretrainedPrior:
    """Loads a prior's averaged (EMA) weights, and its tokenizer with it.

    Args:
      path: a run's directory W, its W/prior, an exported or converted model, or a
        bundled name.
      dtype: of activations and weights, e.g. "bfloat16"; None: as it was trained. An
        exported model is read into it array by array.
      mesh: a `jax.sharding.Mesh` with axes data, fsdp and tensor; None: one device.
      best: the checkpoint of the lowest validation loss instead of the newest.
      grid: (h, w) of the codes, or one number for both, where another is wanted than
        it was trained on: what it knows of positions is then interpolated, see
        `models.positions.at_grid`.

    Raises:
      ValueError: for a dtype or a grid that cannot be, if there is no trained prior, if
        its tokenizer is gone or was trained again since, if the mesh's `tensor` does
        not divide its heads, or if its order does not fit the grid. A prior that was
        converted without a tokenizer has none.
    """
    given = None if dtype is None else jnp.dtype(dtype_named("load_prior", dtype))
    grid = None if grid is None else requests.sides("grid", grid)
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
        mesh = meshes.left_to_the_compiler(mesh)
    model = stored.read(
        path,
        "prior",
        best=best,
        dtype=given or np.float32,
        put=lambda name, array: _placed(name, array, mesh),
    )
    params = model.variables["params"]
    if grid is not None and grid != module.grid:
        order = make_order(recipe.order, grid)
        order = None if is_raster(order) else order
        module, params = at_grid(module, params, grid, order)
    return PretrainedPrior(
        module,
        params,
        vocabulary,
        vqgan=_tokenizer(model, recipe, dtype, mesh),
        condition_vqgan=condition_vqgan,
        recipe=recipe,
        class_names=facts["class_names"],
        told=told["kind"],
        about=facts.get("condition", {}),
        any_grid=facts.get("any_grid", False),
        config=model.config,
        directory=model.directory,
        step=model.step,
        mesh=mesh,
    )


def _tokenizer(model: stored.Stored, recipe: PriorRecipe, *how):
    """The tokenizer that it was trained with; None of one converted without."""
    fingerprint = model.record["facts"]["tokenizer"]["fingerprint"]
    if fingerprint is None:
        return None
    place = recipe.tokenizer or model.directory.parent
    vqgan = load_vqgan(place, *how, stage="vqgan")
    told_by.check_tokenizer(model.directory, fingerprint, vqgan)
    return vqgan


def _placed(name: str, array: np.ndarray, mesh) -> jax.Array:
    """An array of the weights on its devices, there before the next one is read."""
    tree = unflatten_dict({name: array}, sep="/")
    places = None if mesh is None else meshes.state_shardings(tree, mesh)
    return jax.block_until_ready(jax.tree.leaves(jax.device_put(tree, places))[0])
