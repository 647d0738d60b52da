"""`HostSource`: any control of the host's own, so that every option works for every family that the host knows."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ldm.flux.controlnet
import comfy.model_base
import comfy.model_patcher
import torch
from torch import Tensor

from ...cn_core.control_types import names
from ...cn_core.errors import ControlNetKitError
from ..cache import CachingEncoder, Features, HintCache
from .source import Call, Control, ControlSource, Layout


class HostSource(ControlSource):
    """Shares the host's control with nobody: it keeps a hint for the run."""

    kind = "ControlNet run by ComfyUI"

    def __init__(
        self,
        control: comfy.controlnet.ControlBase,
        *,
        name: str,
        family: str,
        layout: Layout,
        control_types: tuple[str, ...] = (),
    ) -> None:
        self.control = control
        self.name, self.family, self.layout, self.control_types = name, family, layout, control_types
        self.given: tuple[Features, int] | None = None

    def copy(self) -> HostSource:
        """With a copy of the host's control."""
        return self.around(self.control.copy())

    def around(self, control: comfy.controlnet.ControlBase) -> HostSource:
        """The same for another copy or clone of the host's control."""
        return HostSource(
            control, name=self.name, family=self.family, layout=self.layout, control_types=self.control_types
        )

    def models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """As the host's control says."""
        return self.control.get_models()

    def memory(self, dtype: torch.dtype) -> float:
        """As the host's control says."""
        return self.control.inference_memory_requirements(dtype)

    def for_device(self, device: torch.device) -> HostSource:
        """With the host's own clone for the device; raises ControlNetKitError where the host has none."""
        try:
            return self.around(self.control.deepclone_multigpu(device))
        except (NotImplementedError, AttributeError) as error:
            raise ControlNetKitError(f"ComfyUI cannot run {self.name} on several devices: use one.") from error

    def prepare(self, control: comfy.controlnet.ControlBase, cache: HintCache) -> None:
        """Everything but strength, window and chain, which are not for the host's control to apply."""
        inner = self.control
        inner.strength, inner.timestep_percent_range, inner.previous_controlnet = 1.0, (0.0, 1.0), None
        inner.extra_args, inner.extra_concat_orig = dict(control.extra_args), list(control.extra_concat_orig)
        inner.vae = None if control.vae is None else CachingEncoder(control.vae, cache)

    def start(self, model: comfy.model_base.BaseModel) -> None:
        """As the host starts it."""
        self.control.cond_hint = self.given = None
        self.control.pre_run(model, model.model_sampling.percent_to_sigma)

    def stop(self) -> None:
        """After a run."""
        self.control.cleanup()
        self.given = None

    def hint_size(self, height: int, width: int) -> None:
        """The host's control resizes hints itself."""

    def response(self, strength: float) -> float:
        """Qwen-Fun's residuals grow with the root of the strength."""
        if isinstance(self.control, comfy.controlnet.QwenFunControlNet):
            return max(strength, 0.0) ** 0.5
        return strength

    def encode(self, hints: Sequence[Tensor], control_types: Sequence[int]) -> Features:  # noqa: ARG002
        """The hint itself."""
        return hints[0]

    def residuals(self, call: Call, features: Features) -> Control:
        """What the host's control gives for this hint."""
        rows = call.x.shape[0]
        if self.given is None or self.given[0] is not features or self.given[1] != rows:
            self.control.cond_hint_original, self.control.cond_hint, self.given = features, None, (features, rows)
        found = self.control.get_control(call.x, call.sigmas, call.cond, call.chunks, call.options)
        return found or {}


def host_source(control: comfy.controlnet.ControlBase, *, name: str) -> HostSource:
    """A control of the host's, or of another pack that keeps to its protocol."""
    model = getattr(control, "control_model", None)
    if isinstance(control, comfy.controlnet.T2IAdapter):
        return HostSource(control, name=name, family="T2I-Adapter", layout="t2i")
    if isinstance(control, comfy.controlnet.ControlLora):
        return HostSource(control, name=name, family="Control-LoRA", layout="unet")
    if isinstance(model, comfy.cldm.cldm.ControlNet):
        count = model.num_control_type if model.control_add_embedding is not None else 0
        types = names("SDXL", count)
        return HostSource(control, name=name, family="Stable Diffusion", layout="unet", control_types=types)
    if isinstance(model, comfy.ldm.flux.controlnet.ControlNetFlux):
        types = names("Flux", model.num_union_modes)
        return HostSource(control, name=name, family="Flux", layout="transformer", control_types=types)
    return HostSource(control, name=name, family=type(model or control).__name__, layout="transformer")
