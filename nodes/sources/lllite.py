"""`LLLiteSource`: a ControlNet-LLLite of cn_core in the host's memory management, acting through the host's patches.

Shapes: R rows of an evaluation, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.model_base
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ...cn_core.errors import CheckpointError, ControlNetKitError, FamilyMismatchError
from ...cn_core.files.checkpoint import Checkpoint
from ...cn_core.files.detect import describe_foreign
from ...cn_core.files.lllite import is_lllite, read_lllite
from ...cn_core.modulation.masks import resized
from ...cn_core.networks.lllite import LLLite, Place
from ..cache import Features
from .held import HeldSource, held
from .source import Call, Gain, Layout

ATTENTIONS = {"attn1": ("to_q", "to_k", "to_v"), "attn2": ("to_q",)}
"""Which of the three inputs that the host's patches get are changed."""


@dataclass(frozen=True, kw_only=True)
class AttentionPatch:
    """Stands before the projections of one kind of attention, for one evaluation."""

    attention: str
    network: LLLite
    features: tuple[Tensor, ...]
    rows: Tensor | None
    """Numbers of the rows that are changed; None: all."""
    gain: Tensor
    """One for each of those rows."""
    mask: Tensor | None
    """Those rows or 1, 1 h w; None: everywhere."""
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """The same for the tokens of a grid."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, extra: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The host's signature: what the three projections would get (R L D each), and where."""
        (block, number), depth = extra["block"], extra["block_index"]
        height, width = extra["activations_shape"][-2:]
        inputs = [query, key, value]
        for index, projection in enumerate(ATTENTIONS[self.attention]):
            place = Place(block=block, number=number, depth=depth, projection=f"{self.attention}.{projection}")
            if place in self.network.places:
                inputs[index] = self.changed(place, inputs[index], (height, width))
        return inputs[0], inputs[1], inputs[2]

    def changed(self, place: Place, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """The input of one projection; rows that are not asked for stay as they are, bit for bit."""
        embedding = self.features[self.network.places[place]]
        some = x if self.rows is None else x[self.rows]
        if self.rows is not None and embedding.shape[0] > 1:
            embedding = embedding[self.rows]
        change = self.network(place, some, embedding, grid) * self.gain.to(x.dtype)[:, None, None]
        if self.mask is not None:
            change = change * self.token_mask(self.mask, grid).to(x.dtype)
        return x + change if self.rows is None else x.index_add(0, self.rows, change)

    def token_mask(self, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Those rows or 1, L 1."""
        if grid not in self.masks:
            self.masks[grid] = resized(mask, grid).flatten(2).mT
        return self.masks[grid]


@dataclass(frozen=True, kw_only=True, eq=False)
class LLLiteSource(HeldSource[LLLite]):
    """A ControlNet-LLLite for SDXL or SD 1.x. Hints are encoded in float32; the rest computes in the model's dtype."""

    kind: str = "ControlNet-LLLite"
    layout: Layout = "unet"
    control_types: tuple[str, ...] = ()
    inside: bool = True

    def check(self, model: comfy.model_base.BaseModel) -> None:
        """Check that every module has its layer in the model."""
        layers = dict(model.diffusion_model.named_modules())
        for place, config in self.network.configs.items():
            found = getattr(layers.get(place.key), "in_features", None)
            if found != config.width:
                has = f"{found} there" if found else "no such layer"
                raise FamilyMismatchError(
                    f"{self.name} is a ControlNet-LLLite for {self.family} and changes the input of {place.key}, "
                    f"of width {config.width}; the model has {has}. Load one made for that model."
                )

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:  # noqa: ARG002
        """Every module's view of the hint: R or 1 rows, E h w each."""
        if len(hints) > 1:
            raise ControlNetKitError(f"{self.name} takes one hint, and got {len(hints)}. Chain a second Apply.")
        return self.network.encode(hints[0].float())

    def install(self, call: Call, features: Features, gain: Gain) -> None:
        """Put patches before all others in `call.options`: those may change the number of tokens or rows.

        Dicts and lists of the model are replaced, never changed.
        """
        acting = gain.rows.nonzero().flatten()
        if not len(acting):
            return
        some, mask = len(acting) < len(gain.rows), gain.mask
        patches = dict(call.options.get("patches", {}))
        for attention in ATTENTIONS:
            patch = AttentionPatch(
                attention=attention,
                network=self.network,
                features=(features,) if isinstance(features, Tensor) else features,
                rows=acting if some else None,
                gain=gain.rows[acting],
                mask=mask[acting] if some and mask is not None and mask.shape[0] > 1 else mask,
            )
            patches[f"{attention}_patch"] = [patch, *patches.get(f"{attention}_patch", ())]
        call.options["patches"] = patches


def load_lllite(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> LLLiteSource:
    """Our network with the file's weights in it, handed to the host's memory management; `dtype` is for storing them.

    Raises CheckpointError when the file holds no ControlNet-LLLite, or one that is not whole.
    """
    name, tensors = checkpoint.path.name, checkpoint.tensors
    if not is_lllite(tensors):
        what = describe_foreign(tensors)
        raise CheckpointError(f"{name} is no ControlNet-LLLite for a UNet, it looks like {what}. Choose another file.")
    detected = read_lllite(tensors, name=name)
    dtype = dtype or comfy.utils.weight_dtype(tensors) or torch.float32
    build = partial(LLLite, detected.configs)
    network, patcher = held(build, tensors, name=name, operations=comfy.ops.manual_cast, dtype=dtype)
    return LLLiteSource(
        name=name, family=detected.family, network=network, patcher=patcher, metadata=dict(checkpoint.metadata)
    )
