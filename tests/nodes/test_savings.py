"""What options spare or measure in a run: reuse, memory given back, calibration."""

from __future__ import annotations

import logging
import re
from typing import Any

import comfy.model_management
import comfy.model_patcher
import pytest
import torch
from controlnet_kit.cn_core.modulation.settings import Modulation
from controlnet_kit.nodes.effect import CALIBRATED_SHARE
from controlnet_kit.nodes.modulation import ControlNetSaving, ControlNetStacking
from random_models import control_tensors, controlnet_file, hint_image, host_load, host_model, our_apply, our_load, run
from residual_recorder import Chunk, of, recorded
from tiny_runs import NEGATIVE, POSITIVE, TINY, TOKENS, counted, evaluations, sampled


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


def saving(
    steps: int = 1, log_sigma: float = 0.0, *, free: bool = False, options: Modulation | None = None
) -> Modulation:
    return run(ControlNetSaving, every_steps=steps, log_sigma=log_sigma, free_after_window=free, options=options)[0]


@pytest.mark.parametrize(
    ("options", "sampler", "count"),
    [
        (saving(1), "euler", 8),
        (saving(2), "euler", 4),
        (saving(3), "euler", 3),
        (saving(100), "euler", 1),
        (saving(1, 100.0), "euler", 1),
        (saving(2), "heun", 4),
    ],
)
def test_reuse_computes_less_and_reports_its_error(model, name, caplog, options, sampler, count):
    with caplog.at_level(logging.INFO, logger="controlnet_kit"):
        assert evaluations(model, name, steps=8, sampler=sampler, inputs={"options": options}) == count
    total = 8 if sampler == "euler" else 15
    reports = [record.getMessage() for record in caplog.records if "evaluations" in record.getMessage()]
    if count == total:
        assert reports == []
    else:
        part = "an unknown part" if count == 1 else r"\d+\.\d %"
        pattern = f"tiny_random.safetensors: computed {count} of {total} evaluations; when .* moved by {part} of"
        assert [re.match(pattern, report) is not None for report in reports] == [True]


def test_reuse_is_exact_in_the_steps_that_compute(model, name):
    """And takes the same residuals in those that do not, at the strength of their own step."""
    inputs: dict[str, Any] = {"options": saving(2), "schedule": "1@step 0, 0.5@step 1, 1@step 2"}
    changed, found, _ = recorded(*our_apply(POSITIVE, NEGATIVE, our_load(name), hint_image(), **inputs), prompts=TOKENS)
    sampled(model, changed)
    first, second = list(of(found, "positive"))[:2]
    for a, b in zip(first.residuals or [], second.residuals or [], strict=True):
        torch.testing.assert_close(b, 0.5 * a)


def loaded(patcher: comfy.model_patcher.ModelPatcher) -> bool:
    return any(patcher is each for each in comfy.model_management.loaded_models())


def test_memory_is_given_back_when_the_window_ends(model, name):
    """During the run, and no bit changes; the base model stays. The next run loads the network again."""
    control = our_load(name)
    kept, freed = ({"options": saving(free=free)} for free in (False, True))
    expected = sampled(model, our_apply(POSITIVE, NEGATIVE, control, hint_image(), 1.0, 0.0, 0.5, **kept))
    conditionings = our_apply(POSITIVE, NEGATIVE, control, hint_image(), 1.0, 0.0, 0.5, **freed)
    seen: list[tuple[bool, bool]] = []

    def look(*_: object) -> None:
        seen.append((loaded(control.source.patcher), loaded(model)))

    for _ in range(2):
        assert torch.equal(sampled(model, conditionings, callback=look), expected)
    assert seen == 2 * [(True, True), (True, True), (False, True), (False, True)]


def test_memory_that_a_copy_still_needs_is_not_given_back(model, name):
    """Two hints through one network: the one whose window ends first must not take it from the other."""
    control, freed = our_load(name), {"options": saving(free=True)}
    first = our_apply(POSITIVE, NEGATIVE, control, hint_image(), 1.0, 0.0, 0.2, **freed)
    both = our_apply(*first, control, hint_image(seed=8), 1.0, 0.5, 0.7, **freed)
    seen: list[bool] = []
    sampled(model, both, steps=10, callback=lambda *_: seen.append(loaded(control.source.patcher)))
    assert seen == [True] * 7 + [False] * 3


@pytest.mark.parametrize("load", [our_load, host_load])
def test_calibration_measures_once_and_scales(model, name, caplog, load):
    calibrated = run(ControlNetStacking, stacking="sum", calibrate=True)[0]
    control = load(name)
    changed, found, _ = recorded(
        *our_apply(POSITIVE, NEGATIVE, control, hint_image(), options=calibrated), prompts=TOKENS
    )
    with caplog.at_level(logging.INFO, logger="controlnet_kit"):
        sampled(model, changed)
    (said,) = (record.getMessage() for record in caplog.records if "of the features' size" in record.getMessage())
    share, factor = map(float, re.findall(r"have (\S+) of .* by (\S+) from", said)[0])
    assert factor == pytest.approx(CALIBRATED_SHARE / share, rel=0.05)
    plain_changed, plain, _ = recorded(*our_apply(POSITIVE, NEGATIVE, control, hint_image()), prompts=TOKENS)
    sampled(model, plain_changed)
    assert ratio(found[0], plain[0]) == 1.0
    # the second step begins from the same latents
    second, expected = (list(of(chunks, "positive"))[1] for chunks in (found, plain))
    assert torch.equal(second.x, expected.x)
    assert ratio(second, expected) == pytest.approx(CALIBRATED_SHARE / share, rel=0.05)


def ratio(changed: Chunk, plain: Chunk) -> float:
    """By what all residuals were multiplied."""
    pairs = list(zip(changed.residuals or [], plain.residuals or [], strict=True))
    factor = float(pairs[0][0].norm() / pairs[0][1].norm())
    for a, b in pairs:
        torch.testing.assert_close(a, factor * b, atol=1e-4, rtol=1e-4)
    return factor


def test_another_seed_encodes_no_hint_anew(model, name):
    """Neither its features nor anything else of it, over queue runs and node runs of the same loaded network."""
    control = our_load(name)
    with counted(control.source.network.input_hint_block) as batches:
        for seed in (5, 6, 7):
            conditionings = our_apply(POSITIVE, NEGATIVE, control, hint_image(), 0.1 * seed)
            sampled(model, conditionings, seed=seed)
    assert batches == [1]
