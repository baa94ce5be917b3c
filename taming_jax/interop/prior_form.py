"""A published prior's configuration, whoever published it.

Prior -> fields of the transformer, keys of `config.prior`, and what a run's config.json
says of its data: grid, codes, classes, the kind of its condition.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from taming_jax.conditions.table import coded
from taming_jax.interop.original import Form
from taming_jax.orders import make_order


@dataclasses.dataclass(frozen=True)
class Prior:
    """A published second stage.

    Attributes:
      model: fields of `Transformer`; those that grid and vocabulary say are left out.
      trained: keys of `config.prior` by which it was trained.
      codes: how many it can draw.
      grid: (h, w) that it draws where nobody asks for another.
      classes: labels that it is told; 0 where it is told something else.
      kind: of its condition: "label", "none", or as its authors call it ("depth").
      condition_length: how many tokens the condition has.
      start: the token that stands for no condition.
      told_by: the stage whose codes the condition is, "vqgan" or "condition_vqgan".
      side: pixels to which a map is reduced before, both ways; None: it is not.
      steps: of coordinates that ours are: to how many values they are rounded.
      any_grid: whether it draws any grid that it has places for.
      form: whose configuration it was.
      rate: its learning rate for each picture of a batch.
      resolution: side of the pictures that it was made for.
      stride: pixels per code of its tokenizer, where that is known.
    """

    model: Mapping[str, Any]
    trained: Mapping[str, Any]
    codes: int
    grid: tuple[int, int]
    classes: int = 0
    kind: str = "label"
    condition_length: int = 1
    start: int = 0
    told_by: str | None = None
    side: int | None = None
    steps: int | None = None
    any_grid: bool = False
    form: Form = "original"
    rate: float = 0.0
    resolution: int = 256
    stride: int | None = None

    def __post_init__(self):
        make_order(self.trained.get("order", "raster"), self.grid)  # or it is said now

    @property
    def readable(self) -> Any:
        """`config.prior.condition` by which it learns on; None where nothing reads it.

        Its vocabulary is shared: what is told it are tokens from 0 on, as those of our
        kinds are then.
        """
        if self.kind in ("label", "none"):
            return self.kind
        if self.steps:
            return {"name": "coordinates", "steps": self.steps, "one": False}
        if self.told_by != "condition_vqgan" or not coded([self.kind]):
            return None
        return {"name": self.kind, "side": self.side} if self.side else self.kind

    def facts(self, fingerprints: Mapping[str, str]) -> dict[str, Any]:
        """What config.json says of it.

        fingerprints: of the tokenizers that are there, by stage.
        """
        return {
            "tokenizer": {"fingerprint": fingerprints.get("vqgan")},
            "grid": list(self.grid),
            "codes": self.codes,
            "class_names": [f"class {i}" for i in range(self.classes)],
            "condition": {
                "kind": self.kind,
                "length": self.condition_length,
                "start": self.start,
                "tokenizer": self.told_by,
                "side": self.side,
                "fingerprint": fingerprints.get(self.told_by),
                "null_label": self.form == "llamagen",
                **({"steps": self.steps} if self.steps else {}),
            },
            "any_grid": self.any_grid,
        }

    def section(self) -> dict[str, Any]:
        """`config.prior` as it was trained; what nobody published as in configs/."""
        shared = self.form == "original"
        trained = dict(self.trained)
        batch_size = trained.pop("batch_size", 64)
        told = self.kind if self.kind in ("label", "none") else "tokens"
        return {
            "tokenizer": None,
            "condition": told,
            "shared_vocabulary": shared,
            "label_dropout": 0.0,
            "pkeep": 1.0,
            "order": "raster",
            "model": {**self.model, "dtype": "float32", "remat": False},
            **trained,
            "learning_rate": self.rate * batch_size,
            "ema_decay": 0.999,
            "steps": 1_000_000,
            "batch_size": batch_size,
            "accumulate": 1,
            "log_every": 100,
            "image_every": 5_000,
            "eval_every": 10_000,
            "eval_examples": 5_000,
            "checkpoint_every": 5_000,
            "keep_checkpoints": 3,
            "stall_seconds": 1_800,
            "on_nonfinite": "stop",
            "init_from": None,
        }
