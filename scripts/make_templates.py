"""Write example_workflows/NAME.json (for the browser) and NAME.jpg from example_workflows/api/NAME.json.

The browser itself turns the API format into its own; here the nodes get their places, a note and their pictures.
The pictures of one of them are docs/sweep.png as well.
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
from PIL import Image, ImageDraw, ImageFont

EXAMPLES = CHECKOUT / "example_workflows"
LAYOUT = {
    "Tiny base": (0, 0, 270, 70),
    "Load ControlNet": (0, 120, 270, 110),
    "Picture": (0, 280, 270, 330),
    "Sketch (white lines on black)": (0, 280, 270, 330),
    "Prompt": (320, 0, 330, 100),
    "Negative prompt": (320, 150, 330, 100),
    "Canny edges": (320, 300, 330, 110),
    "Hint": (320, 460, 330, 230),
    "Apply ControlNet": (700, 0, 300, 330),
    "Empty latent": (700, 380, 300, 110),
    "KSampler": (1050, 0, 270, 270),
    "VAE decode": (1050, 320, 270, 50),
    "Save": (1370, 0, 270, 300),
}
"""Title of a node -> x, y, width, height on the canvas."""
LAYOUTS = {
    "auto_preprocessor": {
        "Auto Preprocessor": (320, 300, 330, 250),
        "Hint": (320, 600, 330, 230),
        "Control Fidelity": (1050, 420, 270, 330),
        "Difference": (1370, 350, 270, 300),
    },
    "schedule_and_mask": {
        "Effect mask from hint": (320, 300, 330, 110),
        "Mask to picture": (320, 460, 330, 30),
        "Effect mask": (320, 540, 330, 230),
    },
    "strength_sweep": {
        "Record": (320, 300, 330, 50),
        "Empty latent": (320, 400, 330, 110),
        "Strength sweep": (320, 560, 330, 150),
        "Preflight": (700, 380, 300, 170),
        "Report": (1050, 420, 270, 250),
        "Effect map": (1370, 350, 270, 80),
        "Map": (1690, 0, 270, 300),
        "Layers and steps": (1690, 350, 600, 270),
    },
    "two_controls": {
        "Outlines (white lines on black)": (0, 280, 270, 330),
        "Load second ControlNet": (0, 660, 270, 110),
        "Silhouette (white on black)": (0, 820, 270, 330),
        "Effect mask from silhouette": (320, 660, 330, 110),
        "Stacking": (320, 820, 330, 90),
        "Apply second ControlNet": (700, 380, 300, 330),
        "Empty latent": (700, 760, 300, 110),
    },
    "train": {
        "Prompt": (0, 120, 330, 100),
        "Negative prompt": (0, 270, 330, 100),
        "Empty latent": (0, 420, 330, 110),
        "KSampler of training pictures": (380, 0, 270, 270),
        "Training pictures": (380, 320, 270, 50),
        "Train ControlNet": (700, 0, 330, 560),
        "Loss and fidelity": (700, 610, 330, 270),
        "Save ControlNet": (1080, 540, 270, 130),
        "Picture": (1080, 0, 270, 330),
        "Canny edges": (1080, 380, 270, 110),
        "Apply ControlNet": (1400, 0, 300, 330),
        "Latent": (1400, 380, 300, 110),
        "KSampler": (1750, 0, 270, 270),
        "VAE decode": (1750, 320, 270, 50),
        "Save": (2070, 0, 270, 300),
    },
}
"""The same for nodes that only one template has, or has elsewhere."""
NOTE_PLACE = {
    "auto_preprocessor": (1690, 0),
    "strength_sweep": (700, 600),
    "two_controls": (1050, 420),
    "train": (1400, 540),
}
INPUTS = " from this pack's folder `example_workflows/inputs`"
NOTES = {
    "auto_preprocessor": "**Auto Preprocessor.** It asks the ControlNet which hint it takes, and says so. Choose "
    "another ControlNet, and the hint is another one. *Control Fidelity* makes the hint again, of the result: white "
    f"lines match, red ones are missing, blue ones extra. The picture is `photo.png`{INPUTS}.",
    "canny": "**Canny.** Choose any picture in *Picture*. Its edges steer what the prompt asks for.",
    "sketch": f"**Sketch.** Draw white lines on black, or take `sketch.png`{INPUTS}, and choose it in *Sketch*.",
    "schedule_and_mask": "**Schedule and mask.** The sketch says nothing outside the boat, and without the effect mask "
    "its black keeps the sun away. The schedule lets go of the boat in the second half of the run. The sketch is "
    f"`boat.png`{INPUTS}.",
    "strength_sweep": "**Strength sweep.** One seed at five strengths, 0 to 1, in one batch. *Report* says beforehand "
    f"what the ControlNet will do, the maps say afterwards where it did. The sketch is `sketch.png`{INPUTS}.",
    "train": "**Train.** Draws a few pictures, trains a Canny ControlNet on them and applies it at once: a minute on a "
    "CPU, far too short to learn much. More pictures (*Load Training Pairs* reads a folder) and more steps do; queue "
    "again after a cancel, and it goes on where it stopped.",
    "two_controls": "**Two ControlNets.** Outlines steer the house, a silhouette the moon. With *mask* the second one "
    "rules inside its effect mask, the first one elsewhere; with *sum* the black of the outlines keeps the moon away. "
    f"The hints are `house.png` and `moon.png`{INPUTS}.",
}
WORDS = "\n\nThe tiny base knows about a hundred words: things, shapes and colours. Try *red apple on blue background*."
EMPTY_FIELDS = ("color_off", "color_on", "dir", "label", "locked", "nameLocked", "removable", "shape", "slot_index")
OWN_PICTURES = {"canny": "example.png"}
"""Templates that open with the picture that every ComfyUI has in its input folder."""
THUMBNAILS = {
    "auto_preprocessor": ("Picture", "Hint", "Save"),
    "canny": ("Hint", "Save"),
    "sketch": ("Sketch (white lines on black)", "Save"),
    "schedule_and_mask": ("Sketch (white lines on black)", "Effect mask", "Save"),
    "strength_sweep": ("Save", "Map"),
    "train": ("Loss and fidelity", "Save"),
    "two_controls": ("Outlines (white lines on black)", "Silhouette (white on black)", "Save"),
}
"""The nodes whose pictures are shown, by title."""
PLACES = {
    2: ((0, 0, 256), (256, 0, 256)),
    3: ((0, 0, 128), (0, 128, 128), (128, 0, 256)),
    6: tuple((x, y, 128) for y in (0, 128) for x in (0, 128, 256)),
}
"""How many pictures a thumbnail has -> x, y and side of each."""
FIGURE = "strength_sweep"
"""The template whose pictures are docs/sweep.png."""
TILE, GAP, HEADER = 150, 6, 24
"""Pixels of a picture of the figure, between two, and of the line of text above."""


def note(name: str) -> dict[str, Any]:
    """A text on the canvas."""
    return {
        "id": 100,
        "type": "MarkdownNote",
        "pos": list(NOTE_PLACE.get(name, (700, 540))),
        "size": [300, 170],
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
    layout = LAYOUT | LAYOUTS.get(name, {})
    for node in workflow["nodes"]:
        x, y, width, height = layout[graph[str(node["id"])]["_meta"]["title"]]
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


def pictures(client: ComfyClient, graph: Graph) -> dict[str, list[Image.Image]]:
    """Run a workflow: the pictures that go in and come out, by the titles of their nodes."""
    made = client.images(client.run(graph).prompt_id)
    files = {node: [io.BytesIO(file) for file in found] for node, found in made.items()}
    chosen = {
        key: [EXAMPLES / "inputs" / node["inputs"]["image"]]
        for key, node in graph.items()
        if node["class_type"] == "LoadImage"
    }
    return {
        graph[node]["_meta"]["title"]: [Image.open(file).convert("RGB") for file in found]
        for node, found in {**files, **chosen}.items()
    }


def thumbnail(shown: list[Image.Image]) -> Image.Image:
    """All pictures on one sheet."""
    places = PLACES[len(shown)]
    sheet = Image.new("RGB", (max(x + side for x, _, side in places), 256))
    for picture, (x, y, side) in zip(shown, places, strict=True):
        sheet.paste(picture.resize((side, side)), (x, y))
    return sheet


def figure(named: list[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures in a row, each with a line of text above it."""
    sheet = Image.new("RGB", (len(named) * (TILE + GAP) - GAP, HEADER + TILE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (text, picture) in enumerate(named):
        left = index * (TILE + GAP)
        draw.text((left + TILE / 2, HEADER / 2), text, "black", font, anchor="mm")
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (left, HEADER))
    return sheet


def sweep_figure(graph: Graph, made: dict[str, list[Image.Image]]) -> Image.Image:
    """The hint, a picture for each strength, and the effect map."""
    sweep, (hint,), (heat,) = (
        inputs_of(graph, "ControlNetStrengthSweep"),
        made["Sketch (white lines on black)"],
        made["Map"],
    )
    strengths = np.linspace(sweep["first"], sweep["last"], sweep["count"])
    named = [(f"strength {strength:g}", each) for strength, each in zip(strengths, made["Save"], strict=True)]
    return figure([("hint", hint), *named, ("effect map", heat)])


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
                made = pictures(client, graph)
                shown = [picture for title in THUMBNAILS[file.stem] for picture in made[title]]
                thumbnail(shown).save(EXAMPLES / f"{file.stem}.jpg", quality=90)
                if file.stem == FIGURE:
                    sweep_figure(graph, made).save(CHECKOUT / "docs" / "sweep.png", optimize=True)
                print(f"wrote example_workflows/{file.stem}.json and .jpg")


if __name__ == "__main__":
    main()
