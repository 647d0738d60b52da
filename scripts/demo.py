"""`make demo`: three pictures steer the embedded base through the real ComfyUI, and the same seeds without control.

Writes out/demo: NAME_hint.png, NAME_without.png, NAME_with.png, overview.png and result.json.
"""

from __future__ import annotations

import copy
import io
import json
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from comfy_client import ComfyClient, Event, Graph, PromptRejectedError, inputs_of
from comfy_server import CHECKOUT, Installation, ServerError, comfy_server, make_base_directory
from controlnet_kit.cn_core.preprocess.fidelity.edges import edge_scores
from PIL import Image, ImageDraw, ImageFont

WORKFLOWS = CHECKOUT / "example_workflows" / "api"
INPUTS = CHECKOUT / "example_workflows" / "inputs"
OUT = CHECKOUT / "out" / "demo"
TILE, GAP, HEADER = 320, 12, 30
"""Pixels of a picture, of the space between two, and of a line of text in the overview."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture of the demo and what to ask for."""

    name: str
    workflow: str
    prompt: str
    seed: int


ROWS = (
    Row(name="composition", workflow="canny", prompt="frog on green and blue background", seed=3),
    Row(name="sketch", workflow="sketch", prompt="orange fish on blue background", seed=2),
    Row(name="photo", workflow="canny", prompt="cookie and cookie on blue background", seed=3),
)
"""A composition of the base's own world that it never saw, a drawing, and a photograph of two coins."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What one row gave; all are H W 3 uint8."""

    row: Row
    hint: np.ndarray
    without: np.ndarray
    controlled: np.ndarray
    edge_f1: dict[str, float]
    """How well the edges agree with the hint, 0 to 1, "without" and "with" control."""
    seconds: dict[str, float]
    """By stage: the titles of the workflow's nodes."""


class DemoError(RuntimeError):
    """The server could not run a prompt."""


def load_graph(row: Row, uploaded: str) -> Graph:
    """The row's workflow with its picture, prompt and seed filled in."""
    graph: Graph = json.loads((WORKFLOWS / f"{row.workflow}.json").read_text())
    inputs_of(graph, "LoadImage")["image"] = uploaded
    inputs_of(graph, "KSampler")["seed"] = row.seed
    prompt, _ = inputs_of(graph, "ApplyControlNet")["positive"]
    graph[prompt]["inputs"]["text"] = row.prompt
    return graph


def without_control(graph: Graph) -> Graph:
    """The same graph with the sampler wired past ApplyControlNet."""
    graph = copy.deepcopy(graph)
    applied, sampler = inputs_of(graph, "ApplyControlNet"), inputs_of(graph, "KSampler")
    sampler.update(positive=applied["positive"], negative=applied["negative"])
    return graph


def show_progress(label: str, graph: Graph, event: Event) -> None:
    """One terminal line that is rewritten; nothing when the output goes to a file."""
    data = event["data"]
    if event["type"] != "progress" or not sys.stdout.isatty():
        return
    title = graph[data["node"]]["_meta"]["title"]
    print(f"\r  {label:<28} {title} {data['value']}/{data['max']}   ", end="", flush=True)


def generate(client: ComfyClient, graph: Graph, label: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Run a prompt: its pictures by the class of the output node, and the seconds of each stage."""
    start = time.monotonic()
    outcome = client.run(graph, lambda event: show_progress(label, graph, event))
    if outcome.status != "execution_success":
        details = outcome.details
        raise DemoError(f"{label}: {details.get('node_type')}: {details.get('exception_message', outcome.status)}")
    print(f"\r  {label:<28} {time.monotonic() - start:5.1f} s{'':20}")
    images = client.images(outcome.prompt_id)
    pictures = {graph[node]["class_type"]: pixels(files[0]) for node, files in images.items()}
    return pictures, {graph[node]["_meta"]["title"]: round(value, 3) for node, value in outcome.seconds.items()}


def pixels(file: bytes | Path) -> np.ndarray:
    """A picture file -> H W 3 uint8."""
    return np.asarray(Image.open(io.BytesIO(file) if isinstance(file, bytes) else file).convert("RGB"))


def run_row(client: ComfyClient, row: Row) -> Pictures:
    """Generate with and without control, from the same seed."""
    picture = INPUTS / f"{row.name}.png"
    graph = load_graph(row, client.upload(picture))
    controlled, seconds = generate(client, graph, f"{row.name}, with control")
    without, _ = generate(client, without_control(graph), f"{row.name}, without")
    hint = controlled.get("PreviewImage", pixels(picture))
    generated = {"without": without["SaveImage"], "with": controlled["SaveImage"]}
    return Pictures(
        row=row,
        hint=hint,
        without=generated["without"],
        controlled=generated["with"],
        edge_f1={name: round(edge_scores(image, hint.max(axis=-1)).f1, 3) for name, image in generated.items()},
        seconds=seconds,
    )


def overview(rows: list[Pictures]) -> Image.Image:
    """All pictures enlarged, a line of text above each row, the columns named at the top."""
    columns = ("hint", "without", "controlled")
    width, height = 3 * (TILE + GAP) + GAP, HEADER + len(rows) * (HEADER + TILE + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for column, title in enumerate(("hint", "without control", "with control")):
        draw.text((GAP + column * (TILE + GAP) + TILE / 2, HEADER / 2), title, "black", font, anchor="mm")
    for index, pictures in enumerate(rows):
        top = HEADER + index * (HEADER + TILE + GAP)
        f1, row = pictures.edge_f1, pictures.row
        text = f'"{row.prompt}", seed {row.seed}: edge F1 {f1["without"]:.2f} without, {f1["with"]:.2f} with control'
        draw.text((GAP, top + HEADER / 2), text, "black", font, anchor="lm")
        for column, name in enumerate(columns):
            resampling = Image.Resampling.NEAREST if name == "hint" else Image.Resampling.LANCZOS
            tile = Image.fromarray(getattr(pictures, name)).resize((TILE, TILE), resampling)
            sheet.paste(tile, (GAP + column * (TILE + GAP), top + HEADER))
    return sheet


def write(rows: list[Pictures], server_seconds: float, out: Path) -> None:
    """Fill `out`, which is emptied first, and print the scores."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    report = []
    for pictures in rows:
        row = pictures.row
        for suffix, picture in (("hint", pictures.hint), ("without", pictures.without), ("with", pictures.controlled)):
            Image.fromarray(picture).save(out / f"{row.name}_{suffix}.png")
        scores = pictures.edge_f1
        report.append(
            {"name": row.name, "prompt": row.prompt, "seed": row.seed, "edge_f1": scores, "seconds": pictures.seconds}
        )
        print(f"  {row.name:<12} edge F1 {scores['without']:.2f} without, {scores['with']:.2f} with control")
    overview(rows).save(out / "overview.png")
    result = {"machine": platform.platform(), "server_start_seconds": round(server_seconds, 1), "rows": report}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    """Start the server, run all rows, write the results."""
    start = time.monotonic()
    print("starting ComfyUI (10 to 20 s)", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="controlnet-kit-demo-") as folder:
            make_base_directory(Path(folder))
            with comfy_server(Path(folder), Installation.from_environment()) as server:
                server_seconds = time.monotonic() - start
                print(f"  ready at {server.url} after {server_seconds:.1f} s")
                client = ComfyClient(server.url)
                rows = [run_row(client, row) for row in ROWS]
    except (ServerError, PromptRejectedError, DemoError) as error:
        sys.exit(f"The demo stopped. {error}")
    write(rows, server_seconds, OUT)
    print(f"{time.monotonic() - start:.0f} s in all. Look at {OUT / 'overview.png'} (and result.json beside it)")


if __name__ == "__main__":
    main()
