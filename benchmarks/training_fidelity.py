"""How long until a ControlNet follows its hints, from zero, on a CPU? The recipe canny-tiny, with fewer steps."""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from controlnet_kit.training.commands import main as command
from controlnet_kit.training.output.history import History
from results import write_section

WANTED, MINUTES = 0.65, 30
"""Edge F1, and within how long."""


def main() -> None:
    """Train and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=25, help="steps between measurements")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        output, cache = Path(folder) / "canny", Path(folder) / "cache"
        short = ("--steps", str(args.steps), "--data.count", str(32 * args.steps + 64), "--log-every", "1")
        watched = ("--every", str(args.every), "--probe-every", "0")
        command(["train", "canny-tiny", *short, *watched, "--cache", str(cache), "--output", str(output)])
        events = list(History(output).read())
    minutes = (time.monotonic() - began) / 60
    steps = [event["seconds"] for event in events if event["event"] == "StepDone"]
    elapsed = [seconds / 60 for seconds in accumulate(steps)]
    scores = {event["number"]: event["scores"] for event in events if event["event"] == "Validated"}
    last = scores[args.steps]
    passed = next((f"passed after {step} steps" for step in scores if scores[step]["edge_f1"] > WANTED), "not reached")
    write_section(
        "A Canny ControlNet for the embedded base, from zero",
        [
            f"The recipe canny-tiny with {args.steps} steps of 32 pairs, each seen once. {minutes:.0f} minutes in all,",
            "the cache of pairs and the measurements included",
            f"(wanted: {WANTED} within {MINUTES}; {passed}). Edge F1 is over 16 held-out compositions;",
            f"without control it is {last['floor']:.3f}, and {last['ceiling']:.3f} for the real pictures.",
            "",
            "| steps | minutes of training | edge F1 |",
            "|---|---|---|",
            *(f"| {step} | {elapsed[step - 1]:.1f} | {found['edge_f1']:.3f} |" for step, found in scores.items()),
        ],
    )


if __name__ == "__main__":
    main()
