"""Does control work? Edge F1, silhouette IoU and colours of the embedded base on 64 compositions it never saw."""

from __future__ import annotations

import time

import numpy as np
from controlnet_kit.training.tiny import evaluate
from controlnet_kit.training.tiny.evaluate import ASSETS, PICTURES, SEED, held_out, load_control, load_generator
from results import write_section


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    generator, compositions = load_generator(ASSETS), held_out(PICTURES)
    prompts = [c.caption for c in compositions]
    originals = np.stack([c.image for c in compositions])
    canny, silhouettes = evaluate.canny_hints(compositions), evaluate.silhouette_hints(compositions)
    started = time.monotonic()
    without = generator.generate(prompts, SEED)
    with_canny = generator.generate(prompts, SEED, load_control(ASSETS, "canny"), canny)
    things = [i for i, prompt in enumerate(prompts) if "pattern" not in prompt]
    titles = [prompts[i] for i in things]
    with_silhouette = generator.generate(titles, SEED, load_control(ASSETS, "silhouette"), silhouettes[things])
    colours, recoloured = evaluate.colours_with_control(generator, load_control(ASSETS, "canny"))
    rows = [
        (
            "edge F1, autoencoder round trip (the ceiling)",
            evaluate.mean_edge_f1(generator.round_trip(originals), canny),
        ),
        ("edge F1, canny ControlNet", evaluate.mean_edge_f1(with_canny, canny)),
        ("edge F1, same seeds and prompts, no control", evaluate.mean_edge_f1(without, canny)),
        ("silhouette IoU, silhouette ControlNet", evaluate.silhouette_iou(with_silhouette, silhouettes[things])),
        (
            "silhouette IoU, same seeds and prompts, no control",
            evaluate.silhouette_iou(without[things], silhouettes[things]),
        ),
        (f"colours as the prompt says, {recoloured} recoloured shapes with canny", colours),
    ]
    lines = [
        f"{PICTURES} held-out compositions, {generator.steps} DDIM steps, CFG {generator.guidance:g}, seed {SEED}; "
        f"{time.monotonic() - started:.0f} s in all.",
        "",
        "| measure | mean |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in rows),
    ]
    write_section("Control on the embedded base", lines)


if __name__ == "__main__":
    main()
