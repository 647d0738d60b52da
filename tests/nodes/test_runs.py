"""Whole runs with options: requeues, schedulers, samplers in parts, memory, several devices."""

from __future__ import annotations

import gc
import logging
from typing import Any

import comfy.model_management
import comfy.model_patcher
import psutil
import pytest
import torch
from controlnet_kit.cn_core.modulation.schedule import parse
from controlnet_kit.cn_core.modulation.settings import Modulation, Reuse
from controlnet_kit.nodes.schedule import ControlNetWindow
from random_models import (
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    our_load,
    run,
)
from tiny_runs import NEGATIVE, POSITIVE, TINY, counted, evaluations, sampled
from torch import Tensor

import nodes

WITH_STATE: dict[str, Any] = {
    "options": Modulation(reuse=Reuse(steps=2), calibrate=True, negative=0.5),
    "schedule": "1@0%, 0.3@step 3",
    "effect_mask": torch.linspace(0, 1, 64).repeat(1, 64, 1),
}
"""Inputs of ApplyControlNet that keep something during a run."""


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


def ours(name: str, *args: Any, **inputs: Any) -> Any:
    return our_apply(POSITIVE, NEGATIVE, our_load(name), hint_image(), *args, **inputs)


def core(name: str, *args: Any) -> Any:
    return host_apply(POSITIVE, NEGATIVE, host_load(name), hint_image(), *args)


def window(start: float, end: float, unit: str) -> dict[str, Any]:
    units = {"steps": "steps of this run", "run": "% of this run"}
    return {"options": run(ControlNetWindow, start=start, end=end, unit=units[unit])[0]}


def test_requeues_and_copies_with_an_interrupt_between(model, name):
    """Nothing that a run keeps outlives it, even if the host does not clean up."""
    conditionings = ours(name, **WITH_STATE)

    def interrupt(*_: object) -> None:
        comfy.model_management.interrupt_current_processing()

    first = sampled(model, conditionings)
    for _ in range(3):
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sampled(model, conditionings, callback=interrupt)
        assert torch.equal(sampled(model, conditionings), first)
        control = conditionings[0][0][1]["control"].copy()
        conditionings = [[[text, {**entry, "control": control}] for text, entry in pairs] for pairs in conditionings]
    assert torch.equal(sampled(model, conditionings), first)
    assert torch.equal(sampled(model, ours(name, **WITH_STATE)), first)


@pytest.mark.parametrize("scheduler", ["normal", "karras", "linear_quadratic", "beta"])
@pytest.mark.parametrize("denoise", [1.0, 0.4])
def test_windows_on_schedulers(model, name, scheduler, denoise):
    """In percent of the noise schedule as core, at any denoise; in steps and percent of the run exactly those."""
    settings: dict[str, Any] = {"steps": 5, "scheduler": scheduler, "denoise": denoise}
    percent = (0.8, 0.1, 0.7)
    assert torch.equal(
        sampled(model, ours(name, *percent), **settings), sampled(model, core(name, *percent), **settings)
    )
    assert evaluations(model, name, inputs=window(1, 3, "steps"), **settings) == 2
    assert evaluations(model, name, inputs=window(0, 60, "run"), **settings) == 3


def test_a_window_that_never_opens_is_said(model, name, caplog):
    """Core is silent here: at denoise 0.4 the run begins after the first 60 % of the noise schedule."""
    with caplog.at_level(logging.WARNING, logger="controlnet_kit"):
        off = sampled(model, ours(name, 1.0, 0.0, 0.5), denoise=0.4)
    assert torch.equal(off, sampled(model, (POSITIVE, NEGATIVE), denoise=0.4))
    assert [record.getMessage() for record in caplog.records if "no control" in record.getMessage()] == [
        "tiny_random.safetensors: no control, none of the 4 steps of this run lies in its window, schedule 0 to 0.5. "
        "Widen it, or give it in steps or in percent of the run (ControlNet Window)."
    ]


def advanced(model: Any, conditionings: Any, latent: Tensor, first: int, last: int) -> Tensor:
    """Some steps of ten, by the host's KSampler (Advanced)."""
    add, leave = ("enable" if on else "disable" for on in (first == 0, last < 10))
    positive, negative = conditionings
    with torch.inference_mode():
        return nodes.KSamplerAdvanced().sample(
            *(model, add, 5, 10, 4.0, "euler", "normal", positive, negative, {"samples": latent}, first, last, leave)
        )[0]["samples"]


def in_two_parts(model: Any, conditionings: Any) -> Tensor:
    middle = advanced(model, conditionings, torch.zeros(1, 4, 8, 8), 0, 4)
    return advanced(model, conditionings, middle, 4, 10)


def test_split_samplers(model, name):
    """The noise schedule goes on in the second part; steps and percent of a run begin anew."""
    percent = (0.9, 0.2, 0.8)
    assert torch.equal(in_two_parts(model, ours(name, *percent)), in_two_parts(model, core(name, *percent)))
    scheduled = ours(name, schedule="1@0.1, 0.2@0.9")
    whole = advanced(model, scheduled, torch.zeros(1, 4, 8, 8), 0, 10)
    effect = (whole - advanced(model, ours(name), torch.zeros(1, 4, 8, 8), 0, 10)).abs().max()
    assert (in_two_parts(model, scheduled) - whole).abs().max() < 0.02 * effect
    control = our_load(name)
    for chosen, expected in ((window(1, 3, "steps"), (2, 2)), (window(0, 50, "run"), (2, 3))):
        conditionings = our_apply(POSITIVE, NEGATIVE, control, hint_image(), **chosen)
        for part, count in zip(((0, 4), (4, 10)), expected, strict=True):
            with counted(control.source.network) as batches:
                advanced(model, conditionings, torch.zeros(1, 4, 8, 8), *part)
            assert len(batches) == count


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2s_ancestral"])
def test_samplers_of_second_order(model, name, sampler):
    assert torch.equal(
        sampled(model, ours(name, 0.8, 0.1, 0.7), sampler=sampler),
        sampled(model, core(name, 0.8, 0.1, 0.7), sampler=sampler),
    )


def test_steps_of_second_order_samplers(model, name):
    """Heun asks a second time at the next step's sigma, which belongs to that step already."""
    assert evaluations(model, name, sampler="heun", steps=4) == 7
    assert evaluations(model, name, sampler="heun", steps=4, inputs=window(0, 2, "steps")) == 3
    assert evaluations(model, name, sampler="heun", steps=4, inputs=window(3, 4, "steps")) == 2


def test_100_runs_do_not_grow(model, name):
    control, process = our_load(name), psutil.Process()
    savings: dict[str, Any] = {"options": Modulation(reuse=Reuse(steps=2), free_after_window=True)}
    different: tuple[dict[str, Any], ...] = (WITH_STATE, window(0, 1, "steps"), savings, {})
    variants = [our_apply(POSITIVE, NEGATIVE, control, hint_image(), **inputs) for inputs in different]

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    sizes, counts = [], []
    for index in range(100):
        sampled(model, variants[index % len(variants)], steps=2)
        if index % 20 == 19:
            sizes.append(process.memory_info().rss)
            counts.append(tensors())
    assert len(set(counts)) == 1, counts
    assert sizes[-1] - sizes[0] < 16 * 2**20, sizes


def on_two_devices(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """The model with a clone on a second device, as the host's MultiGPU node makes it; here both are the CPU."""
    model.cached_patcher_init = (host_model, (TINY,))
    clone = model.deepclone_multigpu(torch.device("cpu", 0))
    clone.is_multigpu_base_clone = True
    both = model.clone()
    both.set_additional_models("multigpu", [clone])
    both.match_multigpu_clones()
    return both


@pytest.mark.parametrize("load", [our_load, host_load])
def test_options_on_several_devices(model, name, load):
    """The host gives each device some prompts, and the control's own clone for it."""
    inputs: dict[str, Any] = {"options": Modulation(negative=0.0, reuse=Reuse(steps=2)), "schedule": "1@0%, 0.3@100%"}
    first = our_apply(POSITIVE, NEGATIVE, load(name), hint_image(seed=9), 0.7)
    chain = our_apply(*first, load(name), hint_image(), **inputs)
    both = on_two_devices(model)
    found = sampled(both, chain)
    torch.testing.assert_close(found, sampled(model, chain), atol=1e-3, rtol=1e-3)
    assert torch.equal(sampled(both, chain), found)
    control = chain[0][0][1]["control"]
    (clone,) = control.multigpu_clones.values()
    assert clone.modulation == control.modulation
    assert clone.modulation.schedule == parse("1@0%, 0.3@100%")
    assert clone.run is control.run is None
