"""`KitControl`: any ControlNet behind the host's control protocol, with the kit's modulation chain.

The host calls `pre_run` at the start of a sampling run, `get_control` before each evaluation of its model, `cleanup` at
the end, but not after an error or an interrupt: so everything that lives for one run sits in one `RunState`.

Shapes: B latents, C channels, H W latent. One evaluation has R = chunks * B rows (positive and negative prompt, say).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakSet

import comfy.controlnet
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ..cn_core.files.metadata import ControlNetMetadata
from ..cn_core.modulation.settings import Modulation
from ..cn_core.modulation.window import Window
from .cache import Features, HintCache
from .chain import SIDE, Gains, combined, gains, in_forward, modulated, pooled, sides, spread
from .effect import Calibration, EffectRecord
from .hints import Encoded, broadcast_rows
from .run_state import RunState
from .sources.host import HostSource
from .sources.source import Call, Control, ControlSource

logger = logging.getLogger(__name__)


class KitControl(comfy.controlnet.ControlBase):
    """One network with its hint, strength, window and further settings."""

    cond_hint_original: Tensor
    """B 3 h w in [0, 1], the hint before it is resized. A tiling extension may put another one here before a run."""

    def __init__(self, source: ControlSource, *, cache: HintCache | None = None) -> None:
        super().__init__()
        self.source = source
        self.modulation = Modulation()
        self.more_hints: tuple[tuple[Tensor, int], ...] = ()
        """Union networks: further hints with their types; the first one's type is the host's extra argument."""
        self.cache = cache or HintCache()
        self.run: RunState | None = None
        self.running = WeakSet[RunState]()
        """The runs of all controls with these weights."""
        self.record: EffectRecord | None = None
        """Of the last run, if it was asked for."""

    def copy(self) -> KitControl:
        """The same weights and cache with settings of their own."""
        twin = KitControl(self.source.copy(), cache=self.cache)
        self.copy_to(twin)
        twin.modulation, twin.more_hints, twin.running = self.modulation, self.more_hints, self.running
        return twin

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> KitControl:
        """A copy with weights of its own for another device."""
        clone = self.copy()
        clone.source, clone.running = self.source.for_device(load_device), WeakSet()
        if autoregister:
            self.multigpu_clones[load_device] = clone
        return clone

    def get_models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """Whatever has to be on the device with the model: this network, and those of the chain."""
        return [*super().get_models(), *self.source.models()]

    def inference_memory_requirements(self, dtype: torch.dtype) -> float:
        """Bytes besides the models, of the whole chain."""
        return self.source.memory(dtype) + super().inference_memory_requirements(dtype)

    @property
    def control_types(self) -> tuple[int, ...]:
        """Union networks: the types of all hints."""
        return (*self.extra_args.get("control_type", ()), *(number for _, number in self.more_hints))

    @property
    def description(self) -> ControlNetMetadata:
        """What the network's file says of itself; nothing for those of the host."""
        return ControlNetMetadata.from_strings(getattr(self.source, "metadata", {}))

    @property
    def window(self) -> Window:
        """When the control acts."""
        start, end = self.timestep_percent_range
        return self.modulation.window or Window(start=start, end=end)

    def pre_run(
        self, model: comfy.model_base.BaseModel, percent_to_timestep_function: Callable[[float], float]
    ) -> None:
        """Once per conditioning entry before a run; raises FamilyMismatchError if `model` needs another network."""
        super().pre_run(model, percent_to_timestep_function)
        self.source.check(model)
        self.source.prepare(self, self.cache)
        self.source.start(model)
        self.cond_hint = None
        self.run = RunState(
            sampling=model.model_sampling,
            dtype=model.get_dtype_inference(),
            name=self.source.name,
            modulation=self.modulation,
            window=self.window,
            percent_to_sigma=percent_to_timestep_function,
            calibration=Calibration(name=self.source.name) if self.modulation.calibrate else None,
        )
        self.running.add(self.run)
        self.record = EffectRecord(name=self.source.name) if self.modulation.record else None

    def cleanup(self) -> None:
        """After a run."""
        super().cleanup()
        if self.run is not None and (report := self.run.report()):
            logger.info("%s", report)
        self.source.stop()
        self.run = None

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Control | None:
        """Residuals for one evaluation: x_noisy is R C H W before the model's scaling, t the sigmas (R)."""
        positive = sides(cond, transformer_options, batched_number)
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(  # pyright: ignore[reportAttributeAccessIssue]
                x_noisy, t, cond, batched_number, transformer_options
            )
        cond.pop(SIDE, None)  # every control of the chain has read it by now, and models do not know it
        run = self.run
        if run is None:
            raise RuntimeError(f"{self.source.name} was asked for control outside a sampling run: pre_run comes first.")
        strength = self.source.response(self.strength * run.strength(float(t[0]), transformer_options))
        if run.ended and self.modulation.free_after_window and not run.freed:
            self.free(run)
        call = Call(
            x=x_noisy,
            sigmas=t,
            cond=cond,
            chunks=batched_number,
            options=transformer_options,
            sampling=run.sampling,
            control_types=self.control_types,
            extra=self.extra_args,
        )
        gain = gains(self.modulation, strength, call, positive)
        return self.control(run, call, gain, previous) if gain.chunks else previous

    def control(self, run: RunState, call: Call, gain: Gains, previous: Control | None) -> Control | None:
        """This control's residuals, modulated and joined to those of the chain before it."""
        latent = (call.x.shape[-2], call.x.shape[-1])
        if self.source.inside:
            self.source.install(call, self.features(run, call), in_forward(gain, call))
            return previous
        compute = partial(self.computed, run, call, gain)
        tiled = self.cond_hint is not None  # by an extension, for tiles that all look like the same evaluation
        own = spread(compute() if tiled else run.residuals(call, compute), gain.chunks, call)
        by_priority = self.modulation.stacking == "mask" and previous is not None
        applied = replace(gain, mask=None) if by_priority else gain
        own = modulated(own, self.modulation, self.source.layout, applied, latent)
        if run.calibration is not None:
            own = run.calibration.scale(own)
        joined = combined(previous, own, self.modulation, gain, latent)
        if run.calibration is not None:
            run.calibration.measure(own, joined, call)
        if self.record is not None:
            self.record.add(own, float(call.sigmas[0]), latent)
        return joined

    def computed(self, run: RunState, call: Call, gain: Gains) -> Control:
        """The network's residuals for the chunks that need them."""
        part = call if len(gain.chunks) == call.chunks else call.of_chunks(gain.chunks)
        control = self.source.residuals(part, self.features(run, part))
        return pooled(control) if self.global_average_pooling else control

    def features(self, run: RunState, call: Call) -> Features:
        """Of the hint for these rows; of what a tiling extension has put into `cond_hint`, if that fits."""
        theirs, size = self.cond_hint, self.source.hint_size(call.x.shape[-2], call.x.shape[-1])
        if theirs is not None and tuple(theirs.shape[2:]) == size:
            hint = broadcast_rows(theirs, call.x.shape[0], call.chunks).to(call.x.device)
            return self.source.encode([hint], call.control_types)
        if run.encoded is None or run.encoded.hints[0] is not self.cond_hint_original:
            run.encoded = self.encoded(run)
        return run.encoded.features(call)

    def encoded(self, run: RunState) -> Encoded:
        """The features of the hints as they are now."""
        return Encoded(
            source=self.source,
            cache=self.cache,
            hints=(self.cond_hint_original, *(hint for hint, _ in self.more_hints)),
            control_types=self.control_types,
            modulation=self.modulation,
            algorithm=self.upscale_algorithm,
            dtype=run.dtype,
        )

    def free(self, run: RunState) -> None:
        """The window has ended: give back what the network holds on the device, unless a copy still needs it."""
        if not all(other.ended for other in self.running):
            return
        run.freed, run.encoded = True, None
        run.kept.clear()
        for patcher in self.source.models():
            comfy.model_management.unload_model_and_clones(patcher)


def as_kit(control_net: comfy.controlnet.ControlBase) -> KitControl:
    """Any control with the kit's options: ours, or one of the host's or of another pack behind `HostSource`."""
    if isinstance(control_net, KitControl):
        return control_net.copy()
    inner: comfy.controlnet.ControlBase = control_net.copy()  # pyright: ignore[reportAttributeAccessIssue]
    control = KitControl(HostSource(inner, name="The ControlNet"))
    inner.copy_to(control)
    return control
