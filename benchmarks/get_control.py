"""How long does one `get_control` take, ours against the host's, for the same SD 1.5-sized file?

Both run in this process in turns, so that whatever else the machine does hits both; each pair gives one ratio, and the
median of the ratios counts. The latent is random, the weights too: neither changes the amount of work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy_in_process import make_importable
from comfy_server import Installation
from controlnet_kit.cn_core.networks.config import SD1
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from results import write_section
from safetensors.torch import save_file
from torch import Tensor

base_directory = make_importable(Installation.from_environment())

import comfy.controlnet  # noqa: E402  only now importable
import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.supported_models  # noqa: E402
from controlnet_kit.nodes.load import load  # noqa: E402

LATENTS = (32, 64)
ROWS = 2
"""A positive and a negative prompt in one batch."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """How long one call took."""

    wall: float
    cpu: float
    """Of all threads of this process: on a CPU hardly touched by what else the machine does."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The calls at one size, in pairs."""

    latent: int
    ours: list[Seconds]
    core: list[Seconds]
    hint: float
    """Encoding the hint for all rows once, as the host does at every call."""

    def row(self) -> str:
        """A line of the table."""
        pairs = list(zip(self.ours, self.core, strict=True))
        wall, cpu = (statistics.median(ratios) for ratios in zip(*map(ratio, pairs), strict=True))
        ours, core = (statistics.median(call.wall for call in calls) for calls in (self.ours, self.core))
        return (
            f"| {self.latent}x{self.latent} | {len(pairs)} | {ours:.3f} s | {core:.3f} s | **{wall:.3f}** | {cpu:.3f} "
            f"| {self.hint:.3f} s ({self.hint / core:.1%}) |"
        )


def ratio(pair: tuple[Seconds, Seconds]) -> tuple[float, float]:
    """Ours / core in wall-clock and in CPU time."""
    ours, core = pair
    return ours.wall / core.wall, ours.cpu / core.cpu


def random_file(path: Path) -> Path:
    """An SD 1.5-sized ControlNet in half precision, as most are shared."""
    torch.manual_seed(0)
    network = ControlNet(SD1)
    for parameter in network.zero_convs.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


def model() -> comfy.model_base.BaseModel:
    """The host's SD 1.5 without a UNet in it: a control asks only for its schedule and its configuration."""
    config = comfy.supported_models.SD15(
        {"context_dim": SD1.context_dim, "use_spatial_transformer": True, "disable_unet_model_creation": True}
    )
    return comfy.model_base.BaseModel(config)


def prepared(control: Any, hint: Tensor) -> Any:
    """A copy with its hint set and its run begun, as the host's sampler leaves it."""
    control, sd15 = control.copy().set_cond_hint(hint), model()
    comfy.model_management.load_models_gpu(control.get_models())
    control.pre_run(sd15, sd15.model_sampling.percent_to_sigma)
    return control


def seconds(function: Callable[[], object]) -> Seconds:
    """Time one call, to the end of what it started on a GPU."""
    synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    synchronise()
    return Seconds(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(ours: Any, core: Any, latent: int, pairs: int) -> Timing:
    """Time both in turns, after one call each that encodes hints and warms up."""
    device = comfy.model_management.get_torch_device()
    hint = torch.rand(1, 3, latent * 8, latent * 8)
    x, tokens = torch.randn(ROWS, 4, latent, latent, device=device), torch.randn(ROWS, 77, 768, device=device)
    sigmas, cond = torch.full((ROWS,), 3.0, device=device), {"c_crossattn": tokens}
    controls = {"ours": prepared(ours, hint), "core": prepared(core, hint)}
    times: dict[str, list[Seconds]] = {"ours": [], "core": []}
    for pair in range(pairs + 1):
        for name in ("ours", "core") if pair % 2 else ("core", "ours"):
            took = seconds(lambda name=name: controls[name].get_control(x, sigmas, cond, ROWS, {}))
            if pair:
                times[name].append(took)
    network, dtype = ours.source.network, ours.source.compute_dtype
    pictures = hint.to(device, dtype).expand(ROWS, -1, -1, -1)
    hints = [seconds(lambda: network.encode_hint(pictures)).wall for _ in range(3)]
    return Timing(latent=latent, ours=times["ours"], core=times["core"], hint=statistics.median(hints))


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = random_file(Path(folder) / "sd15.safetensors")
        ours, core = load(path), comfy.controlnet.load_controlnet(str(path))
        timings = [measure(ours, core, latent, pairs) for latent in LATENTS]
    write_section(
        "get_control: ours against ComfyUI's own",
        [
            f"An SD 1.5-sized ControlNet with random weights, {ROWS} rows (CFG), one picture as hint, in one process,",
            "in turns. The ratio is the median over the pairs of ours / core: below 1 we are faster. The host encodes",
            "the hint at every call and for every row; we encode it once for a run, outside of the times here.",
            "",
            "| latent | pairs | ours | core | ours / core | in CPU time | hint encoder, which only the host pays |",
            "|---|---|---|---|---|---|---|",
            *(timing.row() for timing in timings),
        ],
    )


if __name__ == "__main__":
    main()
