"""What do the options that spare work spare, and what do they cost? On the embedded base, and at SD 1.5's full width.

In every comparison the runs take turns in one process. Times are those of the ControlNet alone: the sum over a run of
its `get_control`, which a stopwatch in the host's own chain of controls measures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from comfy_in_process import make_importable
from comfy_server import CHECKOUT, Installation
from controlnet_kit.training.synth import world
from controlnet_kit.training.tiny import evaluate
from controlnet_kit.training.tiny.evaluate import ASSETS, PICTURES, SEED
from results import write_section
from timing import NO_TIME, THREADS, Comparison, Seconds, compare, seconds
from torch import Tensor, nn

base_directory = make_importable(Installation.from_environment())
sys.path.append(str(CHECKOUT / "tests" / "lib"))

import comfy.controlnet  # noqa: E402  only now importable
import comfy.sample  # noqa: E402
from controlnet_kit.cn_core.modulation.settings import Modulation, Reuse  # noqa: E402
from controlnet_kit.nodes.load import Request, load  # noqa: E402
from controlnet_kit.nodes.tiny import LoadTinyBase  # noqa: E402
from families import ROWS, on_device, prepared, sd15  # noqa: E402
from random_families import FAMILIES  # noqa: E402
from random_models import Conditioning, host_apply, our_apply, run  # noqa: E402

STEPS, CFG, GROUP = 20, 3.0, 16
"""Of a run on the embedded base; so many compositions in one batch."""
SETTINGS = {
    "negative = 0 (cond-only)": Modulation(negative=0.0),
    "exact": Modulation(),
    "residuals of every 2nd step": Modulation(reuse=Reuse(steps=2)),
}
TARGETS = {"negative = 0 (cond-only)": "0.60", "residuals of every 2nd step": "0.55"}
CORE = "ComfyUI's own ControlNet"
CALIBRATED = 2
"""Groups whose share is measured."""


class Stopwatch(comfy.controlnet.ControlBase):
    """Stands behind a control in the host's chain, passes its residuals on, and sums up how long it takes for them."""

    def __init__(self, control: Any) -> None:
        super().__init__()
        self.set_previous_controlnet(control)
        self.total = NO_TIME
        self.share: float | None = None
        """Of the model's features that the residuals have, when they are calibrated."""

    def get_control(self, *evaluation: Any) -> Any:
        """The control's."""
        control, found = self.previous_controlnet, list[Any]()
        self.total += seconds(lambda: found.append(control.get_control(*evaluation)))  # pyright: ignore
        state = getattr(control, "run", None)
        if state is not None and state.calibration is not None:
            self.share = state.calibration.share
        return found[0]


def watched(conditionings: Sequence[Conditioning]) -> tuple[Stopwatch, list[Conditioning]]:
    """The same prompts with a stopwatch behind their control, which they share."""
    watch = Stopwatch(conditionings[0][0][1]["control"])
    return watch, [[[text, entry | {"control": watch}] for text, entry in prompt] for prompt in conditionings]


def sampled(model: Any, noise: Any, sampler: tuple[str, str], steps: int, *, seed: int, by: Any) -> Tensor:
    """Latents, as the host's KSampler node makes them from noise; `sampler` is sampler and scheduler."""
    latent = torch.zeros_like(noise)
    (name, scheduler), (positive, negative) = sampler, by
    return comfy.sample.sample(
        model, noise, steps, CFG, name, scheduler, positive, negative, latent, seed=seed, disable_pbar=True
    )


class TinyRuns:
    """The embedded base in the host, with held-out compositions in groups."""

    def __init__(self) -> None:
        self.model, self.clip, self.vae = run(LoadTinyBase)
        compositions = evaluate.held_out(PICTURES)
        self.groups = [compositions[start : start + GROUP] for start in range(0, PICTURES, GROUP)]
        self.hints = {
            "canny": [evaluate.canny_hints(group) for group in self.groups],
            "silhouette": [evaluate.silhouette_hints(group) for group in self.groups],
        }

    def prompts(self, group: Sequence[world.Composition]) -> tuple[Conditioning, Conditioning]:
        """Positive and negative, one row for each composition."""
        texts = [self.prompt(composition.caption) for composition in group]
        return [[torch.cat([text[0][0] for text in texts]), texts[0][0][1]]], self.prompt("")

    def prompt(self, text: str) -> Conditioning:
        """Of one row."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def images(self, group: int, condition: str) -> Tensor:
        """Its hints as IMAGE."""
        hints = torch.from_numpy(self.hints[condition][group])
        return hints.float().div(255)[..., None].expand(-1, -1, -1, 3)

    def sample(self, by: Any, seed: int, *, steps: int = STEPS, batch: int = GROUP) -> Tensor:
        """Latents."""
        noise = comfy.sample.prepare_noise(torch.zeros(batch, 4, 16, 16), seed)
        return sampled(self.model, noise, ("ddim", "ddim_uniform"), steps, seed=seed, by=by)

    def edge_f1(self, latents: Tensor, group: int) -> float:
        """Mean over the group's pictures."""
        pictures = self.vae.decode(latents).mul(255).round().byte().numpy()
        return evaluate.mean_edge_f1(pictures, self.hints["canny"][group])


def tiny_rows(tiny: TinyRuns) -> Iterator[str]:
    """Cost and edge F1 of each setting on all compositions; each group is sampled with all, exact in between."""
    path = ASSETS / "controlnets" / "tiny_canny.safetensors"
    ours, core = load(path, Request()), comfy.controlnet.load_controlnet(str(path))
    first, exactly, last = SETTINGS
    names = [*SETTINGS, CORE]
    times, scores = {name: list[Seconds]() for name in names}, {name: list[float]() for name in names}
    for number, group in enumerate(tiny.groups):
        prompts, image = tiny.prompts(group), tiny.images(number, "canny")
        applied = {name: our_apply(*prompts, ours, image, options=settings) for name, settings in SETTINGS.items()}
        applied[CORE] = host_apply(*prompts, core, image)
        if number == 0:
            tiny.sample(applied["exact"], SEED, steps=2)  # warms up
        for name in (*((first, exactly, last) if number % 2 else (last, exactly, first)), CORE):
            watch, conditionings = watched(applied[name])
            latents = tiny.sample(conditionings, SEED)
            times[name].append(watch.total)
            scores[name].append(tiny.edge_f1(latents, number))
    exact = float(np.mean(scores["exact"]))
    for name in names:
        ratio, f1 = Comparison(pairs=list(zip(times[name], times["exact"], strict=True))), float(np.mean(scores[name]))
        yield cost_row(f"{name}, embedded base", ratio, f"{f1:.3f} ({f1 - exact:+.3f})")


def cost_row(name: str, ratio: Comparison, f1: str) -> str:
    """A line of the first table."""
    target = next((target for setting, target in TARGETS.items() if name.startswith(setting)), "-")
    first, second = ratio.medians
    times = f"{first:.2f} s | {second:.2f} s | **{ratio.wall:.3f}** | {ratio.cpu:.3f}"
    return f"| {name} | {len(ratio.pairs)} | {times} | {target} | {f1} |"


def wide_rows() -> Iterator[str]:
    """The same at SD 1.5's full width, where the ControlNet is asked for two steps and there is no UNet."""
    family = sd15()
    hint, cond, x = torch.rand(1, 3, 256, 256), on_device(family.cond), torch.randn(ROWS, 4, 32, 32)
    options = {"cond_or_uncond": [0, 1], "uuids": [1, 2], "sample_sigmas": torch.tensor([3.0, 2.5, 0.0])}

    def steps(settings: Modulation) -> Callable[[], None]:
        def call() -> None:
            control.pre_run(family.model, family.model.model_sampling.percent_to_sigma)
            for sigma in (3.0, 2.5):
                control.get_control(
                    x.to(cond["c_crossattn"].device), torch.full((ROWS,), sigma), dict(cond), ROWS, options
                )

        family.ours.modulation = settings
        control = prepared(family, family.ours, hint)
        return call

    for name in TARGETS:
        ratio = compare(steps(SETTINGS[name]), steps(SETTINGS["exact"]), pairs=3)
        yield cost_row(f"{name}, SD 1.5's width", ratio, "")


@contextmanager
def counted(module: nn.Module) -> Generator[list[int]]:
    """How often a module is called, as the length of the list."""
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def requeue_rows(tiny: TinyRuns) -> Iterator[str]:
    """Three runs that differ in the seed alone."""
    path, image = ASSETS / "controlnets" / "tiny_canny.safetensors", tiny.images(0, "canny")[:1]
    prompts, found = tiny.prompts(tiny.groups[0][:1]), list[int]()
    ours, core = load(path, Request()), comfy.controlnet.load_controlnet(str(path))
    networks: tuple[Any, Any] = (ours.source.network, core.control_model)  # pyright: ignore
    for network, by in zip(
        networks, (our_apply(*prompts, ours, image), host_apply(*prompts, core, image)), strict=True
    ):
        with counted(network.input_hint_block) as calls:
            for seed in range(3):
                tiny.sample(by, seed, steps=4, batch=1)
        found.append(len(calls))
    yield f"| hint encoder (embedded base, 4 steps) | {found[0]} | {found[1]} |"
    family, found = FAMILIES["Flux InstantX"](), list[int]()
    if family.vae is None:
        raise RuntimeError("This family takes its hint as a latent.")
    for by in (family.controlled(image), family.host_controlled(image)):
        before = len(family.vae.given)
        for seed in range(3):
            noise = comfy.sample.prepare_noise(torch.zeros(1, family.base.channels, 16, 16), seed)
            sampled(family.base.model, noise, ("euler", "simple"), 4, seed=seed, by=by)
        found.append(len(family.vae.given) - before)
    yield f"| VAE (Flux, narrow, 4 steps) | {found[0]} | {found[1]} |"


def share_rows(tiny: TinyRuns) -> Iterator[str]:
    """What calibration measures in the first step of a run."""
    for condition in tiny.hints:
        control = load(ASSETS / "controlnets" / f"tiny_{condition}.safetensors", Request())
        shares: list[float] = []
        for number, group in enumerate(tiny.groups[:CALIBRATED]):
            prompts, image = tiny.prompts(group), tiny.images(number, condition)
            watch, by = watched(our_apply(*prompts, control, image, options=Modulation(calibrate=True)))
            tiny.sample(by, SEED)
            shares.append(watch.share or 0.0)
        mean, pictures = float(np.mean(shares)), CALIBRATED * GROUP
        yield f"| {condition} | {pictures} | {mean:.3f} | {min(shares):.3f} to {max(shares):.3f} |"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with torch.inference_mode():
        tiny = TinyRuns()
        lines = [
            f"On the embedded base: {PICTURES} held-out compositions in groups of {GROUP}, {STEPS} DDIM steps,",
            f"CFG {CFG:g}, seed {SEED}, canny ControlNet. At SD 1.5's width: two evaluations with random weights at",
            "32x32. Times are of the ControlNet alone; the ratio is the median over the pairs.",
            "",
            "| setting | pairs | ControlNet | exact | ratio | in CPU time | target | edge F1 (against exact) |",
            "|---|---|---|---|---|---|---|---|",
            *tiny_rows(tiny),
            *wide_rows(),
            "",
            "Encodings of the same hint in three queue runs that differ in the seed:",
            "",
            "| | ours | core |",
            "|---|---|---|",
            *requeue_rows(tiny),
            "",
            "Strength calibration, embedded base: the residuals' share of the features (RMS) at strength 1, in step 1:",
            "",
            "| ControlNet | pictures | share | over the groups |",
            "|---|---|---|---|",
            *share_rows(tiny),
        ]
    write_section("Options that spare work", lines)


if __name__ == "__main__":
    main()
