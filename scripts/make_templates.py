"""Write example_workflows/NAME.json (for the browser) and NAME.jpg from example_workflows/api/NAME.json.

The browser itself turns the API format into its own; here the nodes get their places, a note and their pictures.
Run after the API files or the nodes' inputs have changed: make templates
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from comfy_browser import browser, chromium, open_comfyui, write_settings
from comfy_client import ComfyClient, Graph, inputs_of
from comfy_server import CHECKOUT, Installation, comfy_server, make_base_directory
from PIL import Image

EXAMPLES = CHECKOUT / "example_workflows"
LAYOUT = {
    "Tiny base": (0, 0, 270, 70),
    "Load ControlNet": (0, 120, 270, 90),
    "Picture": (0, 260, 270, 330),
    "Prompt": (320, 0, 330, 100),
    "Negative prompt": (320, 150, 330, 100),
    "Canny edges": (320, 300, 330, 110),
    "Hint": (320, 460, 330, 230),
    "Apply ControlNet": (700, 0, 270, 190),
    "Empty latent": (700, 240, 270, 110),
    "KSampler": (1020, 0, 270, 270),
    "VAE decode": (1020, 320, 270, 50),
    "Save": (1340, 0, 270, 270),
}
"""Title of a node -> x, y, width, height on the canvas."""
NOTES = {
    "canny": "**Canny.** Choose any picture in *Picture*. Its edges steer what the prompt asks for.",
    "sketch": "**Sketch.** Draw white lines on black, or take `sketch.png` from this pack's folder "
    "`example_workflows/inputs`, and choose it in *Sketch*.",
}
WORDS = "\n\nThe tiny base knows about a hundred words: things, shapes and colours. Try *red apple on blue background*."
EMPTY_FIELDS = ("color_off", "color_on", "dir", "label", "locked", "nameLocked", "removable", "shape", "slot_index")
OWN_PICTURES = {"canny": "example.png"}
"""Templates that open with the picture that every ComfyUI has in its input folder."""


def note(name: str) -> dict[str, Any]:
    """A text on the canvas."""
    return {
        "id": 100,
        "type": "MarkdownNote",
        "pos": [700, 400],
        "size": [270, 150],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [NOTES[name] + WORDS],
    }


def tidy(workflow: dict[str, Any], graph: Graph, name: str) -> dict[str, Any]:
    """Put every node in its place, keep the seed fixed, and drop fields that say nothing."""
    for node in workflow["nodes"]:
        title = graph[str(node["id"])]["_meta"]["title"]
        x, y, width, height = LAYOUT["Picture" if node["type"] == "LoadImage" else title]
        node.update(pos=[x, y], size=[width, height])
        for slot in (*node["inputs"], *node["outputs"]):
            for field in (*EMPTY_FIELDS, "pos"):
                if field in slot and slot[field] is None:
                    del slot[field]
        if node["type"] == "KSampler":
            node["widgets_values"][1] = "fixed"
        if node["type"] == "LoadImage" and name in OWN_PICTURES:
            node["widgets_values"][0] = OWN_PICTURES[name]
    workflow["nodes"].append(note(name))
    workflow["last_node_id"] = 100
    return workflow


def thumbnail(client: ComfyClient, graph: Graph) -> Image.Image:
    """What the workflow makes: its hint and its picture, side by side."""
    outcome = client.run(graph)
    images = client.images(outcome.prompt_id)
    made = {graph[node]["class_type"]: Image.open(io.BytesIO(files[0])) for node, files in images.items()}
    hint = made.get("PreviewImage") or Image.open(EXAMPLES / "inputs" / inputs_of(graph, "LoadImage")["image"])
    tiles = [np.asarray(picture.convert("RGB").resize((256, 256))) for picture in (hint, made["SaveImage"])]
    return Image.fromarray(np.concatenate(tiles, axis=1))


def main() -> None:
    """All files in example_workflows/api."""
    executable = chromium()
    if executable is None:
        sys.exit("No Chromium found; install it (Debian: apt-get install chromium) and run this again.")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_base_directory(base)
        write_settings(base)
        with comfy_server(base, Installation.from_environment()) as server, browser(executable) as running:
            client, page = ComfyClient(server.url), open_comfyui(running, server.url)
            for picture in (EXAMPLES / "inputs").glob("*.png"):
                client.upload(picture)
            for file in sorted((EXAMPLES / "api").glob("*.json")):
                graph: Graph = json.loads(file.read_text())
                page.evaluate("([graph, name]) => window.app.loadApiJson(graph, name)", [graph, file.stem])
                page.wait_for_function(f"window.app.graph.nodes.length === {len(graph)}")
                workflow = tidy(page.evaluate("() => window.app.graph.serialize()"), graph, file.stem)
                (EXAMPLES / file.name).write_text(json.dumps(workflow, indent=1) + "\n")
                thumbnail(client, graph).save(EXAMPLES / f"{file.stem}.jpg", quality=90)
                print(f"wrote example_workflows/{file.stem}.json and .jpg")


if __name__ == "__main__":
    main()
