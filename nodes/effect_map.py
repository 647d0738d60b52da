"""Where and how strongly a ControlNet acted, as pictures; and one picture for each strength in a single batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import comfy.controlnet
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from ..cn_core.modulation.frames import parse_strengths
from ..cn_core.modulation.settings import Modulation
from .boundary import to_image
from .control import KitControl
from .effect import Effect, EffectRecord
from .fit import picture_size
from .options import CATEGORY, Options, chained, schema


def chain(control: comfy.controlnet.ControlBase | None) -> Iterable[comfy.controlnet.ControlBase]:
    """A control and those before it, the last one first."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def controls(conditioning: list[list]) -> list[comfy.controlnet.ControlBase]:
    """Every control of a CONDITIONING, once."""
    found = (control for _, entry in conditioning for control in chain(entry.get("control")))
    return list(dict.fromkeys(found))


class RecordControlNet(io.ComfyNode):
    """Switches the record on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return schema(
            "RecordControlNet",
            "Record ControlNet",
            "Keeps where and how strongly the ControlNet acts, for ControlNet Effect Map.",
            [],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, options: Modulation | None = None
    ) -> io.NodeOutput:
        """With the record."""
        return io.NodeOutput(replace(options or Modulation(), record=True))


class ControlNetEffectMap(io.ComfyNode):
    """Shows the record of the last run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="ControlNetEffectMap",
            display_name="ControlNet Effect Map",
            category="ControlNet Kit",
            description="Heat maps of where and how strongly each ControlNet of the chain acted, over the run and "
            "by layer and step. Needs Record ControlNet among the options.",
            search_aliases=["heat map", "attention map", "debug controlnet"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="From Apply ControlNet."),
                io.Latent.Input("latent", tooltip="From the sampler: so that this node comes after it."),
            ],
            outputs=[
                io.Image.Output(display_name="map"),
                io.Image.Output(display_name="layers_and_steps"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, positive: list[list], latent: dict[str, Any]
    ) -> io.NodeOutput:
        """One picture of each kind for each recorded control."""
        found = [c.record for c in controls(positive) if isinstance(c, KitControl) and c.record and c.record.effects]
        if not found:
            raise ControlNetKitError(
                "ControlNetEffectMap: nothing was recorded. Connect Record ControlNet to the `options` of Apply."
            )
        maps = torch.cat([overall(record, picture_size(latent)) for record in found])
        tables = [by_layer_and_step(record) for record in found]
        height, width = (max(picture.shape[axis] for picture in tables) for axis in (2, 3))
        padded = [F.pad(p, (0, width - p.shape[3], 0, height - p.shape[2]), value=0.12) for p in tables]
        report = "\n\n".join(map(described, found))
        return io.NodeOutput(to_image(maps), to_image(torch.cat(padded)), report)


def overall(record: EffectRecord, size: tuple[int, int]) -> Tensor:
    """The mean of all maps, each residual counting the same, white where it is largest: 1 3 H W."""
    from ..cn_core.preprocess.heatmap import heatmap  # OpenCV, only when it is used

    maps = [effect.map / effect.map.mean() for effect in record.effects if effect.map is not None and effect.strength]
    if not maps:
        return torch.zeros(1, 3, *size)
    sized = [F.interpolate(each[None, None], size=size, mode="bilinear")[0] for each in maps]
    mean = torch.cat(sized).mean(dim=0, keepdim=True)
    return heatmap(mean / mean.max())


def grid(effects: list[Effect]) -> tuple[list[str], list[float], dict[tuple[str, float], Effect]]:
    """(layers, sigmas from high to low, effect of each pair)."""
    layers = list(dict.fromkeys(effect.layer for effect in effects))
    sigmas = sorted({effect.sigma for effect in effects}, reverse=True)
    return layers, sigmas, {(effect.layer, effect.sigma): effect for effect in effects}


def by_layer_and_step(record: EffectRecord) -> Tensor:
    """A row for each layer, a column for each evaluation; white is the largest value of the layer."""
    from ..cn_core.preprocess.heatmap import table  # OpenCV, only when it is used

    layers, sigmas, effects = grid(record.effects)
    rows: list[list[Tensor | None]] = []
    for layer in layers:
        maps = [effects[layer, sigma].map if (layer, sigma) in effects else None for sigma in sigmas]
        largest = max((float(each.max()) for each in maps if each is not None), default=0.0) or 1.0
        rows.append([None if each is None else each / largest for each in maps])
    return table(rows, layers)


def described(record: EffectRecord) -> str:
    """The RMS of every residual, a line for each layer."""
    layers, sigmas, effects = grid(record.effects)
    head = "layer".ljust(12) + "".join(f"{f'sigma {sigma:.3g}':>14}" for sigma in sigmas)
    lines = [
        layer.ljust(12)
        + "".join(f"{effects[layer, s].strength:14.4g}" if (layer, s) in effects else f"{'-':>14}" for s in sigmas)
        for layer in layers
    ]
    return "\n".join([f"{record.name}: RMS of the residuals", head, *lines])


class ControlNetStrengthSweep(io.ComfyNode):
    """The same picture at several strengths, in one batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="ControlNetStrengthSweep",
            display_name="ControlNet Strength Sweep",
            category=CATEGORY,
            description="Makes a batch of one latent and noise in which each picture has another strength: connect "
            "latent to the sampler and options to Apply ControlNet.",
            search_aliases=["xy plot", "compare strength", "grid"],
            inputs=[
                io.Latent.Input("latent", tooltip="What would be sampled; its first picture is taken."),
                io.Float.Input("first", default=0.0, min=-10.0, max=10.0, step=0.01, tooltip="Strength of the first."),
                io.Float.Input("last", default=1.0, min=-10.0, max=10.0, step=0.01, tooltip="Strength of the last."),
                io.Int.Input("count", default=5, min=2, max=64, tooltip="How many pictures."),
                chained(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                Options.Output(display_name="options"),
                io.String.Output(display_name="strengths"),
            ],
        )

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, latent: dict[str, Any], first: float, last: float, count: int, options: Modulation | None = None
    ) -> io.NodeOutput:
        """The batch, and the options with a strength for each of its pictures."""
        strengths = ", ".join(f"{first + (last - first) * index / (count - 1):g}" for index in range(count))
        repeated = {
            key: value[:1].repeat(count, *[1] * (value.ndim - 1)) if key in ("samples", "noise_mask") else value
            for key, value in latent.items()
        }
        start = latent.get("batch_index", [0])[0]
        swept = replace(options or Modulation(), frame_strengths=parse_strengths(strengths))
        return io.NodeOutput({**repeated, "batch_index": [start] * count}, swept, strengths)
