"""Batches as videos: every window of frames sees the hints, strengths and masks of its own frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from controlnet_kit.cn_core.modulation.settings import Modulation, Reuse
from controlnet_kit.nodes.apply import ApplyControlNet
from controlnet_kit.nodes.modulation import ControlNetFrames
from random_models import (
    SHAPES,
    control_tensors,
    controlnet_file,
    hint_image,
    host_apply,
    host_load,
    host_model,
    our_apply,
    our_load,
    prompts,
    run,
    sample,
)
from residual_recorder import Chunk, by_hand, of, recorded
from torch import Tensor

import nodes

TINY = SHAPES["tiny"]
POSITIVE, NEGATIVE = prompts(TINY)
TOKENS = {"positive": POSITIVE[0][0], "negative": NEGATIVE[0][0]}
FRAMES = 6
WINDOWS = {"standard_static": [[0, 1, 2, 3], [2, 3, 4, 5]], "batched": [[0, 1, 2, 3], [4, 5]]}
"""What the host makes of six frames with windows of four that share two."""


@pytest.fixture(scope="module")
def model() -> comfy.model_patcher.ModelPatcher:
    return host_model(TINY)


@pytest.fixture(scope="module")
def name() -> str:
    return controlnet_file(control_tensors(TINY.config), "tiny_random.safetensors")


def windowed(model: Any, *, schedule: str = "standard_static", causal: bool = False, length: int = 4) -> Any:
    """The model with the host's context windows over the batch."""
    settings = {"context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": 0, "freenoise": False}
    windows = {"context_length": length, "context_overlap": 2, "context_schedule": schedule}
    return run(ContextWindowsManualNode, model=model, causal_window_fix=causal, **windows, **settings)[0]


def frames(hints: str = "cycle", strengths: str = "") -> Modulation:
    return run(ControlNetFrames, hints=hints, strengths=strengths)[0]


def watched(model: Any, control: Any, image: Tensor, **inputs: Any) -> list[Chunk]:
    """What both prompts got in two steps over all frames."""
    changed, found, _ = recorded(*our_apply(POSITIVE, NEGATIVE, control, image, **inputs), prompts=TOKENS)
    sample(model, *changed, batch=FRAMES, steps=2)
    return found


def frames_of(chunk: Chunk, noise: Tensor) -> list[int]:
    """Which frames of the video its latents are, told by the noise that the first step begins with."""
    similar = torch.nn.functional.cosine_similarity(chunk.x.flatten(1)[:, None], noise.flatten(1)[None], dim=2)
    assert (similar.amax(dim=1) > 0.99).all()
    return similar.argmax(dim=1).tolist()


def first_step(found: list[Chunk]) -> list[tuple[Chunk, list[int]]]:
    """The chunks of the first step with their frames."""
    noise = torch.randn(FRAMES, 4, 8, 8, generator=torch.manual_seed(5))
    return [(chunk, frames_of(chunk, noise)) for chunk in found if chunk.sigma == found[0].sigma]


def assert_each_frame(found: list[Chunk], model: Any, name: str, hint: Callable[[int], Tensor], **factor: Any) -> None:
    """Each row is what core gives for this frame's hint alone, times a strength for the frame."""
    strength = factor.get("strength", lambda _: 1.0)
    for chunk, numbers in first_step(found):
        for row, frame in enumerate(numbers):
            positive, _ = host_apply(POSITIVE, NEGATIVE, host_load(name), hint(frame))
            one = slice(row, row + 1)
            expected = by_hand(positive[0][1]["control"], model, chunk.x[one], chunk.text[one], chunk.sigma)
            assert chunk.residuals is not None
            for ours, theirs in zip(chunk.residuals, expected, strict=True):
                torch.testing.assert_close(ours[one], strength(frame) * theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("schedule", WINDOWS)
@pytest.mark.parametrize("load", [our_load, host_load])
def test_windows_see_their_frames_hints(model, name, load, schedule):
    hints = hint_image(FRAMES)
    found = watched(windowed(model, schedule=schedule), load(name), hints)
    assert [numbers for chunk, numbers in first_step(found) if chunk.prompt == "positive"] == WINDOWS[schedule]
    assert_each_frame(found, model, name, lambda frame: hints[[frame]])


def test_the_frame_that_the_causal_fix_puts_first(model, name):
    """The host evaluates every window but the first with the frame before it, and drops that frame again."""
    hints, masks = hint_image(FRAMES), torch.ones(FRAMES, 8, 8)
    masks[1] = 0
    found = watched(
        *(windowed(model, causal=True), our_load(name), hints),
        **{"options": frames(strengths="1, 0.5, 2, 1, 1, 3"), "effect_mask": masks},
    )
    assert [numbers for chunk, numbers in first_step(found) if chunk.prompt == "positive"] == [
        [0, 1, 2, 3],
        [1, 2, 3, 4, 5],
    ]
    strengths = (1.0, 0.0, 2.0, 1.0, 1.0, 3.0)
    assert_each_frame(found, model, name, lambda frame: hints[[frame]], strength=lambda frame: strengths[frame])


def test_one_hint_for_all_frames_is_cores(model, name):
    ours = sample(windowed(model), *our_apply(POSITIVE, NEGATIVE, our_load(name), hint_image()), batch=FRAMES)
    host = sample(windowed(model), *host_apply(POSITIVE, NEGATIVE, host_load(name), hint_image()), batch=FRAMES)
    assert torch.equal(ours, host)


def test_a_video_shorter_than_a_window_is_cores(model, name):
    whole, hints = windowed(model, length=16), hint_image(FRAMES)
    ours = sample(whole, *our_apply(POSITIVE, NEGATIVE, our_load(name), hints), batch=FRAMES)
    assert torch.equal(ours, sample(model, *host_apply(POSITIVE, NEGATIVE, host_load(name), hints), batch=FRAMES))


@pytest.mark.parametrize(("mode", "expected"), [("cycle", (0, 1, 2, 0, 1, 2)), ("repeat_last", (0, 1, 2, 2, 2, 2))])
@pytest.mark.parametrize("windows", [True, False])
def test_fewer_hints_than_frames(model, name, mode, expected, windows):
    hints = hint_image(3)
    found = watched(windowed(model) if windows else model, our_load(name), hints, options=frames(hints=mode))
    assert_each_frame(found, model, name, lambda frame: hints[[expected[frame]]])


@pytest.mark.parametrize("load", [our_load, host_load])
def test_strengths_of_frames(model, name, load):
    hints = hint_image(FRAMES)
    found = watched(windowed(model), load(name), hints, options=frames(strengths="1:3=0.5, -1=0, 3=2"))
    strengths = (1.0, 0.5, 0.5, 2.0, 1.0, 0.0)
    assert_each_frame(found, model, name, lambda frame: hints[[frame]], strength=lambda frame: strengths[frame])


def test_masks_of_frames(model, name):
    hints, masks = hint_image(FRAMES), torch.stack([torch.full((8, 8), frame / FRAMES) for frame in range(FRAMES)])
    found = watched(windowed(model), our_load(name), hints, effect_mask=masks)
    assert_each_frame(found, model, name, lambda frame: hints[[frame]], strength=lambda frame: frame / FRAMES)


def test_windows_do_not_share_reused_residuals(model, name):
    """All windows of a step have the same shape and the same prompts."""
    hints = hint_image(FRAMES)
    found = watched(windowed(model), our_load(name), hints, options=Modulation(reuse=Reuse(steps=2)))
    assert_each_frame(found, model, name, lambda frame: hints[[frame]])


def test_windows_that_move_do_not_pile_up_residuals(model, name):
    """The host's looped schedule takes other frames from step to step, whose residuals nobody asks for again."""
    control, count = our_load(name), 20
    reuse = Modulation(reuse=Reuse(steps=2))
    positive, negative = our_apply(POSITIVE, NEGATIVE, control, hint_image(), options=reuse)
    used, kept = positive[0][1]["control"], list[int]()
    handle = control.source.network.register_forward_hook(lambda *_: kept.append(len(used.run.kept)))
    sample(windowed(model, schedule="looped_uniform", length=8), positive, negative, batch=count, size=(4, 4), steps=16)
    handle.remove()
    assert len(kept) > 2 * max(kept)
    assert max(kept) < count - 4


def test_windows_in_areas(model, name):
    """Frames and parts of the hint at the same time."""
    hints = hint_image(FRAMES, height=64, width=64)
    area = nodes.ConditioningSetArea().append(POSITIVE, 40, 64, 24, 0, 1.0)[0]
    sockets = {"positive": area, "negative": NEGATIVE, "control_net": our_load(name), "image": hints, "model": model}
    *conditionings, patched = run(ApplyControlNet, **sockets, strength=1.0, start_percent=0.0, end_percent=1.0)
    changed, found, _ = recorded(*conditionings, prompts=TOKENS)
    sample(windowed(patched), *changed, batch=FRAMES, steps=2)
    chunks = [chunk for chunk in of(found, "positive") if chunk.sigma == found[0].sigma]
    assert [chunk.x.shape for chunk in chunks] == [(4, 4, 8, 5)] * 2
    for chunk, numbers in zip(chunks, WINDOWS["standard_static"], strict=True):
        positive, _ = host_apply(POSITIVE, NEGATIVE, host_load(name), hints[numbers][:, :, 24:])
        expected = by_hand(positive[0][1]["control"], model, chunk.x, chunk.text, chunk.sigma)
        for ours, theirs in zip(chunk.residuals or [], expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"sub_idxs": [2, 3, 5], "full_length": 6, "context_length": 3}, (2, 3, 5)),
        ({"sub_idxs": None, "full_length": 6, "context_length": 3}, (0, 1, 2)),
        ({"sub_idxs": [4, 5, 0], "full_length": 6, "context_length": 3}, (4, 5, 0)),
    ],
)
def test_animatediffs_parameters(model, name, params, expected):
    """AnimateDiff-Evolved says in the transformer options which frames the latents are."""
    hints, strengths = hint_image(FRAMES), (1.0, 0.5, 2.0, 3.0, 0.0, 0.7)
    inputs: dict[str, Any] = {"options": frames("repeat_last", "1, 0.5, 2, 3, 0, 0.7")}
    control = our_apply(POSITIVE, NEGATIVE, our_load(name), hints, **inputs)[0][0][1]["control"]
    x = torch.randn(3, 4, 8, 8, generator=torch.manual_seed(1)).repeat(2, 1, 1, 1)
    text = torch.cat([TOKENS["positive"].repeat(3, 1, 1), TOKENS["negative"].repeat(3, 1, 1)])
    options = {"cond_or_uncond": [0, 1], "uuids": [0, 1], "ad_params": params}
    with torch.inference_mode():
        control.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
        given = control.get_control(x, torch.full((6,), 3.0), {"c_crossattn": text}, 2, options)
        control.cleanup()
    for row, frame in enumerate(2 * expected):
        one = slice(row, row + 1)
        alone = host_apply(POSITIVE, NEGATIVE, host_load(name), hints[[frame]])[0][0][1]["control"]
        theirs = by_hand(alone, model, x[one], text[one], 3.0)
        for ours, residual in zip([r for key in given for r in given[key]], theirs, strict=True):
            torch.testing.assert_close(ours[one], strengths[frame] * residual, atol=1e-4, rtol=1e-4)
