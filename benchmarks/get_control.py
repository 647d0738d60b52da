"""How long does one `get_control` take, ours against the host's, for the same network?

Weights and latents are random: neither changes the amount of work.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from comfy_in_process import make_importable
from comfy_server import CHECKOUT, Installation
from results import write_section
from timing import THREADS, Comparison, compare, seconds

base_directory = make_importable(Installation.from_environment())
sys.path.append(str(CHECKOUT / "tests" / "lib"))

import comfy.cldm.cldm  # noqa: E402  only now importable
import comfy.model_management  # noqa: E402
from families import FAMILIES, ROWS, Family, on_device, prepared  # noqa: E402


def measure(family: Family, latent: int) -> str:
    """A line of the table: both timed in turns, after one call each that encodes hints and warms up."""
    device = comfy.model_management.get_torch_device()
    hint, cond = torch.rand(1, 3, latent * 8, latent * 8), on_device(family.cond)
    x = torch.randn(ROWS, family.channels, latent, latent, device=device)
    sigmas = torch.full((ROWS,), 0.8 if family.channels == 16 else 3.0, device=device)

    def calls(control: Any) -> Callable[[], object]:
        return lambda: control.get_control(x, sigmas, dict(cond), ROWS, {})

    ours, core = prepared(family, family.ours, hint), prepared(family, family.core, hint)
    times = compare(calls(ours), calls(core), family.pairs[latent])
    share = hint_share(core, calls(core))
    for control in (ours, core):
        control.cleanup()
    return row(f"{family.name}, {latent}x{latent}", times, share)


def row(name: str, times: Comparison, hint: str) -> str:
    """One line."""
    ours, core = times.medians
    return (
        f"| {name} | {len(times.pairs)} | {1000 * ours:.1f} ms | {1000 * core:.1f} ms | **{times.wall:.3f}** "
        f"| {times.cpu:.3f} | {hint} |"
    )


def hint_share(core: Any, call: Callable[[], object]) -> str:
    """The part of a call that the host spends on encoding the hint, again and for every row; "-" where it does not."""
    network = getattr(core, "control_model", None)
    if not isinstance(network, comfy.cldm.cldm.ControlNet):
        return "-"
    marks: list[float] = []
    hooks = (
        network.input_hint_block.register_forward_pre_hook(lambda *_: marks.append(-time.perf_counter())),
        network.input_hint_block.register_forward_hook(lambda *_: marks.append(time.perf_counter())),
    )
    whole = sum(seconds(call).wall for _ in range(3))
    for hook in hooks:
        hook.remove()
    return f"{sum(marks) / whole:.0%}"


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[[], *FAMILIES], help="none: all, and the results are written")
    chosen = parser.parse_args().families
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rows: list[str] = []
    with torch.inference_mode():
        for name in chosen or FAMILIES:
            family = FAMILIES[name]()
            rows += [measure(family, latent) for latent in family.pairs]
            print(*rows[-len(family.pairs) :], sep="\n", flush=True)
    if chosen:
        return
    write_section(
        "get_control: ours against ComfyUI's own",
        [
            f"Networks with random weights, {ROWS} rows (CFG), one picture as hint, in one process, in turns. The",
            "ratio is the median over the pairs of ours / core: below 1 we are faster. For UNets the host encodes the",
            "hint at every call and for every row; we encode it once for a run, outside of the times here.",
            "",
            "| network, latent | pairs | ours | core | ours / core | in CPU time | of the host's, hint encoder |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ],
    )


if __name__ == "__main__":
    main()
