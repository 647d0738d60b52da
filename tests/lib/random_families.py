"""Every family of ControlNets that the host knows, narrow: its network behind the host's control and behind ours.

Shapes: B latents, C channels, H W latent, h w pixels. One evaluation has R = chunks * B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import comfy.supported_models_base
import torch
import torch.nn.functional as F
from comfy.controlnet import ControlBase, ControlLora, ControlNet
from comfy.model_base import BaseModel
from controlnet_kit.cn_core.networks.config import UNetConfig
from random_adapters import NARROW, adapter_tensors
from random_loras import control_lora_tensors
from random_models import (
    SHAPES,
    Conditioning,
    Shape,
    Tensors,
    control_tensors,
    controlnet_file,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    randomise_,
)
from random_transformers import (
    FLOAT32,
    Base,
    cascade_base,
    cascade_control,
    flux_base,
    hunyuan_base,
    hunyuan_control,
    instantx_tensors,
    mistoline_tensors,
    qwen_base,
    qwen_control,
    qwen_fun_tensors,
    sd3_base,
    sd3_tensors,
    sd35_tensors,
    unet_base,
    xlabs_tensors,
)
from torch import Tensor

import nodes

Residuals = dict[str, list[Any]]
"""The host's."""


def flat(found: Residuals | None) -> list[Tensor]:
    """Those that are there."""
    assert found is not None
    return [residual for key in ("input", "middle", "output") for residual in found[key] if residual is not None]


def assert_equal(found: Residuals | None, expected: Residuals | None) -> None:
    """The same residuals at the same places, bit for bit, and some that are not 0."""
    assert found is not None
    assert expected is not None
    for key in ("input", "middle", "output"):
        assert [residual is None for residual in found[key]] == [residual is None for residual in expected[key]]
    assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected), strict=True))
    assert any(residual.any() for residual in flat(found))


class StandInVAE:
    """Averages of 8 x 8 pixels, mixed into latent channels; remembers what it was given."""

    def __init__(self, channels: int, *, video: bool = False) -> None:
        self.mix = torch.randn(3, channels, generator=torch.Generator().manual_seed(channels))
        self.video = video
        self.given: list[Tensor] = []

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """B h w 3 in [0, 1] -> B C H W, of video B C 1 H W."""
        self.given.append(pixel_samples)
        means = F.avg_pool2d(pixel_samples.movedim(-1, 1), 8).movedim(1, -1)
        latents = ((2 * means - 1) @ self.mix).movedim(-1, 1)
        return latents.unsqueeze(2) if self.video else latents

    def spacial_compression_encode(self) -> int:
        """Pixels for each latent position."""
        return 8


@dataclass(frozen=True, kw_only=True)
class Controls:
    """One network twice."""

    host: ControlBase
    ours: ControlBase
    """From our loader where there is a file, else the host's, which our Apply takes as well."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One network behind the host's control and behind ours, and what goes with it."""

    controls: Controls
    base: Base
    vae: StandInVAE | None = None
    grid: int = 1
    """Latent positions for each of the residuals' tokens; 2 for transformers."""
    size: tuple[int, int] = (17, 15)
    """Height and width of a latent that the host takes; odd where it can be."""
    small: tuple[int, int] = (8, 8)
    """Of a smaller one."""

    def host_controlled(
        self, image: Tensor, strength: float = 1.0, *, after: Sequence[Conditioning] | None = None
    ) -> tuple[Conditioning, Conditioning]:
        """ControlNetApplyAdvanced, `after` another control's conditioning."""
        positive, negative = after or self.base.prompts
        node = nodes.ControlNetApplyAdvanced()
        return node.apply_controlnet(positive, negative, self.controls.host, image, strength, 0.0, 1.0, vae=self.vae)  # pyright: ignore[reportCallIssue]

    def controlled(
        self, image: Tensor, strength: float = 1.0, *, after: Sequence[Conditioning] | None = None, **inputs: Any
    ) -> tuple[Conditioning, Conditioning]:
        """ApplyControlNet."""
        positive, negative = after or self.base.prompts
        inputs = {"vae": self.vae} | inputs
        return our_apply(positive, negative, self.controls.ours, image, strength, **inputs)

    def latent(self, batch: int, size: tuple[int, int]) -> Tensor:
        """Noise."""
        shape = (batch, self.base.channels, *(1,) * self.base.video, *size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(size)))

    def asked(
        self,
        controlled: Sequence[Conditioning],
        *,
        batch: int = 1,
        size: tuple[int, int] | None = None,
        order: Sequence[int] = (0, 1),
        options: Mapping[str, Any] | None = None,
        finish: bool = True,
    ) -> Residuals | None:
        """One evaluation as the host's sampler asks for it; `order` of chunks: 0 positive prompt, 1 negative one."""
        control, model, x = (
            controlled[0][0][1]["control"],
            self.base.model.model,
            self.latent(batch, size or self.small),
        )
        rows, sigma = len(order) * batch, float(model.model_sampling.percent_to_sigma(0.4))
        transformer_options = {"cond_or_uncond": [*order], "uuids": [*range(len(order))], **(options or {})}
        with torch.inference_mode():
            control.pre_run(model, model.model_sampling.percent_to_sigma)
            cond = evaluated(model, [controlled[side] for side in order], x)
            cond["transformer_options"] = transformer_options
            latents = torch.cat([x] * len(order))
            found = control.get_control(latents, torch.full((rows,), sigma), cond, len(order), transformer_options)
            if finish:
                control.cleanup()
        return found

    def sampled(
        self, controlled: Sequence[Conditioning], *, batch: int = 1, size: tuple[int, int] = (8, 8), steps: int = 2
    ) -> Tensor:
        """The host's KSampler node from an empty latent."""
        model, latent = self.base.model, {"samples": torch.zeros_like(self.latent(batch, size))}
        positive, negative = controlled
        with torch.inference_mode():
            out = nodes.KSampler().sample(model, 5, steps, 4.0, "euler", "simple", positive, negative, latent)
        return out[0]["samples"]


def evaluated(model: BaseModel, conditionings: Sequence[Conditioning], x: Tensor) -> dict[str, Any]:
    """What the host's sampler makes of prompts for one evaluation: c_crossattn, y, ... with R rows each."""
    chunks: list[Any] = []
    for conditioning in conditionings:
        conds = comfy.sampler_helpers.convert_cond(conditioning)
        conds = comfy.samplers.encode_model_conds(model.extra_conds, conds, x, x.device, "prompt", latent_image=x)
        chunks.append({key: cond.process_cond(len(x), area=None) for key, cond in conds[0]["model_conds"].items()})
    return comfy.samplers.cond_cat(chunks)


def from_file(tensors: Tensors, name: str) -> Controls:
    """Both loaders on one file."""
    file = controlnet_file(tensors, f"{name}.safetensors")
    return Controls(host=host_load(file), ours=our_load(file))


def from_host(control: ControlBase) -> Controls:
    """The host's control in its node and in ours."""
    return Controls(host=control, ours=control)


UNION = UNetConfig(
    channel_mult=(1, 1),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 1),
    context_dim=64,
    adm_in_channels=None,
    use_linear_in_transformer=True,
)
"""320 channels, which the host's union network has in any case; otherwise as little as possible."""


UNION_SHAPE: dict[str, Any] = {"image_size": 32, "in_channels": 4, "model_channels": 320, "hint_channels": 3} | {
    **{"num_res_blocks": [1, 1], "channel_mult": (1, 1), "transformer_depth": [0, 1], "transformer_depth_middle": 1},
    **{"context_dim": 64, "use_spatial_transformer": True, "use_linear_in_transformer": True, "legacy": False},
    **{"num_head_channels": 64, "union_controlnet_num_control_type": 6},
}
"""The same in the host's words."""


def union_family() -> Family:
    """xinsir's."""
    network = comfy.cldm.cldm.ControlNet(**UNION_SHAPE, **FLOAT32)
    control = ControlNet(randomise_(network, seed=7), load_device=comfy.model_management.get_torch_device())
    control.set_extra_arg("control_type", [3])
    shape = Shape(config=UNION, host=comfy.supported_models_base.BASE)
    return Family(
        controls=from_host(control), base=Base(model=host_model(shape), prompts=prompts(shape), channels=4), size=(9, 7)
    )


def sd3(tensors: Tensors, name: str) -> Family:
    """SD3 and SD3.5."""
    return Family(controls=from_file(tensors, name), base=sd3_base(), vae=StandInVAE(16), grid=2)


def flux(tensors: Tensors, name: str, *, latent: bool) -> Family:
    """With a `latent` for a hint, or with pixels."""
    vae, size = (StandInVAE(16), (17, 15)) if latent else (None, (18, 14))
    return Family(controls=from_file(tensors, name), base=flux_base(), vae=vae, grid=2, size=size)


def flux_union() -> Family:
    """With type 4, a pose."""
    family = flux(instantx_tensors(num_union_modes=10), "union", latent=True)
    for control in (family.controls.host, family.controls.ours):
        control.set_extra_arg("control_type", [4])
    return family


def qwen(controls: Controls) -> Family:
    """Latents with a dimension of frames."""
    return Family(controls=controls, base=qwen_base(), vae=StandInVAE(16, video=True), grid=2)


def unet(control: ControlBase, shape: str = "tiny") -> Family:
    """With a base of that one of `SHAPES`."""
    return Family(controls=from_host(control), base=unet_base(shape))


def host_read(tensors: Tensors) -> ControlBase:
    """By the host's own loader."""
    control = comfy.controlnet.load_controlnet_state_dict(dict(tensors))
    assert control is not None
    return control


TINY, ADAPTER = SHAPES["tiny"].config, replace(NARROW["full"], channels=(64, 128, 256, 256))
FAMILIES: Mapping[str, Callable[[], Family]] = {
    "SD3": lambda: sd3(sd3_tensors(), "SD3"),
    "SD3 inpaint": lambda: sd3(sd3_tensors(17), "SD3_inpaint"),
    "SD3.5 blur": lambda: sd3(sd35_tensors(0), "SD35_blur"),
    "SD3.5 canny": lambda: sd3(sd35_tensors(1, large=True), "SD35_canny"),
    "SD3.5 depth": lambda: sd3(sd35_tensors(2), "SD35_depth"),
    "Flux XLabs": lambda: flux(xlabs_tensors(), "xlabs", latent=False),
    "Flux MistoLine": lambda: flux(mistoline_tensors(), "mistoline", latent=False),
    "Flux InstantX": lambda: flux(instantx_tensors(), "instantx", latent=True),
    "Flux Union": flux_union,
    "Flux AliMama": lambda: flux(instantx_tensors(control_latent_channels=17), "alimama", latent=True),
    "Qwen InstantX": lambda: qwen(from_host(qwen_control())),
    "Qwen inpaint": lambda: qwen(from_host(qwen_control(4))),
    "Qwen Fun": lambda: qwen(from_file(qwen_fun_tensors(), "qwen_fun")),
    "HunyuanDiT": lambda: Family(controls=from_host(hunyuan_control()), base=hunyuan_base(), vae=StandInVAE(4), grid=2),
    "Stable Cascade": lambda: Family(
        controls=from_host(cascade_control()), base=cascade_base(), size=(5, 7), small=(4, 4)
    ),
    "Stable Diffusion": lambda: unet(host_read(control_tensors(TINY))),
    "SD union": union_family,
    "Control-LoRA": lambda: unet(ControlLora(control_lora_tensors(TINY))),
    "T2I-Adapter": lambda: unet(host_read(adapter_tensors(ADAPTER)), "SD 1.x"),
}
