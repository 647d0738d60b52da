"""The host's guiders, which order prompts in their own ways: defaults equal core, sides are told right."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    CFGGuider,
    DualCFGGuider,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_perpneg import PerpNegGuider
from comfy_extras.nodes_sag import SelfAttentionGuidance
from controlnet_kit.cn_core.modulation.settings import Modulation
from controlnet_kit.nodes.chain import SIDE
from random_models import (
    SHAPES,
    conditioning,
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
from residual_recorder import Chunk, of, recorded
from torch import Tensor

TINY = SHAPES["tiny"]
PROMPTS = {name: conditioning(TINY.config, seed) for name, seed in (("positive", 10), ("negative", 11), ("third", 12))}
TOKENS = {name: pairs[0][0] for name, pairs in PROMPTS.items()}
MORE_IMPORTANT: dict[str, Any] = {"control_mode": "ControlNet is more important"}


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


def cfg(model: Any, positive: Any, negative: Any, _: Any) -> Any:
    return run(CFGGuider, model=model, positive=positive, negative=negative, cfg=4.0)[0]


def sag(model: Any, positive: Any, negative: Any, _: Any) -> Any:
    return cfg(run(SelfAttentionGuidance, model=model, scale=0.5, blur_sigma=2.0)[0], positive, negative, _)


def dual(style: str) -> Any:
    def guider(model: Any, positive: Any, negative: Any, third: Any) -> Any:
        scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 2.0, "style": style}
        return run(DualCFGGuider, model=model, cond1=positive, cond2=third, negative=negative, **scales)[0]

    return guider


def perp_neg(model: Any, positive: Any, negative: Any, third: Any) -> Any:
    scales = {"cfg": 4.0, "neg_scale": 0.7}
    return run(PerpNegGuider, model=model, positive=positive, negative=negative, empty_conditioning=third, **scales)[0]


GUIDERS = {
    "CFG": (cfg, {"positive"}),
    "SAG": (sag, {"positive"}),
    "DualCFG": (dual("regular"), {"positive", "third"}),
    "DualCFG nested": (dual("nested"), {"positive", "third"}),
    "PerpNeg": (perp_neg, {"positive"}),
}
"""How each is made, and which of its prompts are on the positive side."""


def guided(model: Any, guider: Any) -> Tensor:
    """The latents of three steps with a guider."""
    with torch.inference_mode():
        return run(
            SamplerCustomAdvanced,
            noise=run(RandomNoise, noise_seed=5)[0],
            guider=guider,
            sampler=run(KSamplerSelect, sampler_name="euler")[0],
            sigmas=run(BasicScheduler, model=model, scheduler="normal", steps=3, denoise=1.0)[0],
            latent_image={"samples": torch.zeros(1, 4, 9, 8)},
        )[0]["samples"]


def applied(guider: str, apply: Any, control: Any, prompts: dict[str, Any] | None = None, **inputs: Any) -> Any:
    """All three prompts with control: the third one goes through Apply with those of its side."""
    given, side = prompts or PROMPTS, "positive" if "third" in GUIDERS[guider][1] else "negative"
    lists = {name: given[name] + (given["third"] if name == side else []) for name in ("positive", "negative")}
    results = dict(
        zip(lists, apply(lists["positive"], lists["negative"], control, hint_image(), **inputs), strict=True)
    )
    return {name: results[name][:1] for name in lists} | {"third": results[side][1:]}


def sampled(model: Any, guider: str, prompts: dict[str, Any]) -> Tensor:
    return guided(model, GUIDERS[guider][0](model, prompts["positive"], prompts["negative"], prompts["third"]))


def watched(model: Any, guider: str, prompts: dict[str, Any]) -> list[Chunk]:
    """What each prompt got; nothing of the pack's own may reach the model."""
    changed, found, recorders = recorded(*prompts.values(), prompts=TOKENS)
    with keywords_of_the_model(model) as keywords:
        sampled(model, guider, dict(zip(prompts, changed, strict=True)))
    assert not any(recorder.leftovers for recorder in recorders)
    assert keywords
    assert SIDE not in keywords
    return found


@contextmanager
def keywords_of_the_model(model: Any) -> Generator[set[str]]:
    """The names of all arguments with which the diffusion model is called."""
    keywords: set[str] = set()
    handle = model.model.diffusion_model.register_forward_pre_hook(
        lambda _, __, given: keywords.update(given), with_kwargs=True
    )
    yield keywords
    handle.remove()


@pytest.mark.parametrize("third", ["controlled", "without control"])
@pytest.mark.parametrize("guider", GUIDERS)
def test_defaults_are_those_of_core(model, name, guider, third):
    changes = {} if third == "controlled" else {"third": PROMPTS["third"]}
    ours = applied(guider, our_apply, our_load(name)) | changes
    host = applied(guider, host_apply, host_load(name)) | changes
    assert torch.equal(sampled(model, guider, ours), sampled(model, guider, host))
    assert not torch.equal(sampled(model, guider, ours), sampled(model, guider, PROMPTS))


@pytest.mark.parametrize("load", [our_load, host_load])
@pytest.mark.parametrize("guider", GUIDERS)
def test_only_positive_prompts_are_controlled(model, name, guider, load):
    found = watched(model, guider, applied(guider, our_apply, load(name), **MORE_IMPORTANT))
    asked = {"positive", "negative"} | ({"third"} if guider.startswith(("Dual", "Perp")) else set())
    assert {chunk.prompt for chunk in found} == asked
    for prompt in asked:
        assert {chunk.controlled for chunk in of(found, prompt)} == {prompt in GUIDERS[guider][1]}


@pytest.mark.parametrize("guider", GUIDERS)
def test_sides_may_be_turned_round(model, name, guider):
    settings = Modulation(positive=0.0, negative=1.0)
    found = watched(model, guider, applied(guider, our_apply, our_load(name), options=settings))
    assert all(chunk.controlled == (chunk.prompt not in GUIDERS[guider][1]) for chunk in found)


@pytest.mark.parametrize("guider", ["CFG", "DualCFG", "PerpNeg", "SAG"])
def test_a_third_prompt_without_control_stays_without(model, name, guider):
    prompts = applied(guider, our_apply, our_load(name), **MORE_IMPORTANT) | {"third": PROMPTS["third"]}
    found = watched(model, guider, prompts)
    assert {chunk.prompt for chunk in found} == {"positive", "negative"}
    assert all(chunk.controlled == (chunk.prompt == "positive") for chunk in found)


@pytest.mark.parametrize("guider", ["CFG", "DualCFG"])
def test_chains_of_core_and_ours(model, name, guider):
    """Of the residuals only core's are left on the negative side, and of the marks nothing."""
    core = applied(guider, host_apply, host_load(name))
    alone = watched(model, guider, core)
    both = watched(model, guider, applied(guider, our_apply, our_load(name), core, **MORE_IMPORTANT))
    first = applied(guider, our_apply, our_load(name), **MORE_IMPORTANT)
    middle = applied(guider, host_apply, host_load(name), first)
    last_is_core = watched(model, guider, middle)
    three = watched(model, guider, applied(guider, our_apply, our_load(name), middle, **MORE_IMPORTANT))
    for chain in (both, last_is_core, three):
        for got, expected in zip(chain, alone, strict=True):
            if expected.evaluation or got.residuals is None or expected.residuals is None:
                continue  # later steps begin from other latents
            assert got.prompt == expected.prompt
            same = all(torch.equal(a, b) for a, b in zip(got.residuals, expected.residuals, strict=True))
            assert same == (got.prompt not in GUIDERS[guider][1])


def test_controlled_and_plain_prompts_combined(model, name):
    """A list of two prompts on each side, one of each without control and so without a mark."""
    positive, negative = our_apply(
        PROMPTS["positive"], PROMPTS["negative"], our_load(name), hint_image(), **MORE_IMPORTANT
    )
    prompts = {"positive": positive + PROMPTS["third"], "negative": PROMPTS["third"] + negative, "third": []}
    found = watched(model, "CFG", prompts)
    assert [(chunk.prompt, chunk.controlled) for chunk in found if not chunk.evaluation] == [
        ("negative", False),
        ("positive", True),
    ]
