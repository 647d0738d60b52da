"""How strongly each layer's residual counts: control modes, three bands, a number for each layer.

*Coarseness* makes networks of any depth comparable: 1 where residuals decide the composition, falling to 0 where they
decide fine detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import ControlNetKitError

ControlMode = Literal["balanced", "prompt", "control"]
"""A1111's "Balanced", "My prompt is more important" and "ControlNet is more important".

The last two weigh layers alike; "control" also means that the residuals for negative prompts are multiplied by 0, which
is up to the caller."""
Layout = Literal["unet", "t2i", "transformer"]
"""How a network's residuals lie in the host's lists:

unet: "output"[i] belongs to the skip of input block i, shallow to deep; "middle" is deeper.
t2i: T2I-Adapters, and Stable Cascade's: "input" is stored deep to shallow, with holes; XL adapters have their deepest
feature under "middle".
transformer: "input" and then "output" in the order of the model's blocks: Flux has 19 double blocks and then 38 single
ones, others have one of the lists. First blocks decide the composition, so both lists together are one depth."""
Present = Mapping[str, Sequence[bool]]
"""The host's lists "input", "middle" and "output": is there a residual at each place?"""
Layer = tuple[str, int, float]
"""Which list, index in it, coarseness."""

SOFT = 0.825
SOFT_DEPTH = 12
"""A1111's mode for SD 1.x and 2.x: 0.825 ** (12 - i) for the 12 skips and, at i = 12, the middle."""
SOFT_T2I = (0.25, 0.62, 0.825, 1.0)
"""A1111's for the four features of T2I-Adapters, shallow to deep."""
STRONGEST = 10.0


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """All of these multiply; the defaults change nothing. Numbers go from -10 to 10."""

    mode: ControlMode = "balanced"
    bands: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Composition (coarseness from 2/3), structure (from 1/3), detail (below)."""
    layers: tuple[float, ...] = ()
    """One for each residual: UNets and T2I-Adapters shallow to deep, the middle last; transformers in block order."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(ControlMode):
            raise ControlNetKitError(f'Unknown control mode "{self.mode}": take balanced, prompt or control.')
        if len(self.bands) != 3:
            raise ControlNetKitError(
                f"Got weights for {len(self.bands)} bands; they are 3: composition, structure, detail."
            )
        for weight in (*self.bands, *self.layers):
            if not abs(weight) <= STRONGEST:
                raise ControlNetKitError(f"The weight {weight:g} of a layer: weights go from -10 to 10.")


def layer_weights(present: Present, layout: Layout, weights: LayerWeights) -> dict[str, list[float]]:
    """A factor for each entry of the lists, 1.0 for holes.

    Raises ControlNetKitError if `weights.layers` has another number of entries than the network has residuals.
    """
    found = layers(present, layout)
    if weights.layers and len(weights.layers) != len(found):
        raise ControlNetKitError(
            f"Got {len(weights.layers)} weights of layers, but this network has {len(found)}. "
            "Write one for each, or none."
        )
    factors = {key: [1.0] * len(entries) for key, entries in present.items()}
    for place, (key, index, coarseness) in enumerate(found):
        mode = 1.0 if weights.mode == "balanced" else soft(coarseness, layout)
        own = weights.layers[place] if weights.layers else 1.0
        factors[key][index] = mode * band(coarseness, weights.bands) * own
    return factors


def layers(present: Present, layout: Layout) -> list[Layer]:
    """The residuals that are there, in the order in which `LayerWeights.layers` counts them."""
    places = {key: list(enumerate(entries)) for key, entries in present.items()}
    inputs, middle, outputs = (places.get(key, []) for key in ("input", "middle", "output"))
    if layout == "unet":
        skips = [("output", i, i / len(outputs)) for i, there in outputs if there]
        return [*skips, *(("middle", i, 1.0) for i, there in middle if there)]
    if layout == "t2i":
        features = [("input", i) for i, there in reversed(inputs) if there]
        features += [("middle", i) for i, there in middle if there]
        deepest = len(features) - 1
        return [(key, i, rank / deepest if deepest else 1.0) for rank, (key, i) in enumerate(features)]
    blocks = [*(("input", i, there) for i, there in inputs), *(("output", i, there) for i, there in outputs)]
    last = max(len(blocks) - 1, 1)
    return [(key, i, 1.0 - block / last) for block, (key, i, there) in enumerate(blocks) if there]


def soft(coarseness: float, layout: Layout) -> float:
    """The modes "prompt" and "control": A1111's numbers where it has some, the same curve over other depths."""
    if layout != "t2i":
        return SOFT ** (SOFT_DEPTH * (1.0 - coarseness))
    place = coarseness * (len(SOFT_T2I) - 1)
    left = min(int(place), len(SOFT_T2I) - 2)
    return SOFT_T2I[left] * (left + 1 - place) + SOFT_T2I[left + 1] * (place - left)


def band(coarseness: float, bands: tuple[float, float, float]) -> float:
    """The weight of the band to which a layer belongs."""
    composition, structure, detail = bands
    if coarseness >= 2 / 3:
        return composition
    return structure if coarseness >= 1 / 3 else detail
