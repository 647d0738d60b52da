"""What `TrainControlNet` learns from: pictures of the graph, or a folder below the host's input folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ..cn_core.errors import ControlNetKitError
from .boundary import to_pixels

if TYPE_CHECKING:
    from ..training.config import DataConfig
    from ..training.data.pairs import Pairs
    from ..training.data.pictures import Drawn

# The trainer is imported where it is used: the host's start-up does not pay for it.

Socket = io.Custom("CONTROLNET_TRAINING_PAIRS")
FORMATS = ("auto", "pairs", "fill50k", "imagefolder", "webdataset", "huggingface")
CAPTIONS = ("given", "default", "empty")


@dataclass(frozen=True, kw_only=True)
class TrainingFolder:
    """What travels on the socket: pictures are read when training wants them."""

    config: DataConfig


def of_graph(images: Sequence[Tensor], hints: Sequence[Tensor], captions: Sequence[str]) -> Pairs:
    """IMAGEs (B H W C each), their hints if there are some, and captions: one for each picture, or one for all.

    Raises HintError for pictures that are none, and ControlNetKitError for counts that differ.
    """
    from ..training.data.pairs import Listed, Pair

    pictures, drawn = drawings(images, "image"), drawings(hints, "hint")
    if drawn and len(drawn) != len(pictures):
        raise ControlNetKitError(
            f"There are {len(pictures)} images and {len(drawn)} hints. Connect a hint for each image, in their order."
        )
    texts = captions_for(captions, len(pictures))
    return Listed(
        name="The pictures of the graph",
        pairs=[
            Pair(key=picture.name, image=picture, hint=drawn[row] if drawn else None, caption=texts[row])
            for row, picture in enumerate(pictures)
        ],
    )


def drawings(images: Sequence[Tensor], what: str) -> list[Drawn]:
    """All pictures of some batches, as 8-bit RGB."""
    from ..training.data.hints import to_pixels as levels
    from ..training.data.pictures import Drawn

    pixels = [picture for batch in images for picture in levels(to_pixels(batch))]
    return [Drawn(name=f"{what} {number}", pixels=one) for number, one in enumerate(pixels, start=1)]


def lines(captions: Sequence[str]) -> list[str]:
    """Captions from the widget, one on each line, or from a list of texts."""
    texts = captions[0].splitlines() if len(captions) == 1 else captions
    return [" ".join(text.split()) for text in texts if text.strip() or len(captions) > 1]


def captions_for(captions: Sequence[str], count: int) -> list[str]:
    """One for each picture; raises ControlNetKitError where that cannot be."""
    found = lines(captions)
    if not any(found):
        raise ControlNetKitError("There are no captions. Write one for all pictures, or one for each on its own line.")
    if len(found) not in (1, count):
        raise ControlNetKitError(
            f"There are {count} images and {len(found)} captions. Write one for all, or one line for each image."
        )
    return found * count if len(found) == 1 else found


def folders() -> list[str]:
    """Below the host's input folder."""
    return folder_paths.get_input_subfolders()


def fingerprint(folder: Path) -> list[tuple[str, int, int]]:
    """Changes when a file of the folder does."""
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    stats = [(path, path.stat()) for path in sorted(found) if path.exists()]
    return [(path.as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


class LoadTrainingPairs(io.ComfyNode):
    """From a folder, with nothing of it in memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="LoadTrainingPairs",
            display_name="Load Training Pairs",
            category="ControlNet Kit/training",
            description="A folder of pictures, hints and captions below ComfyUI's input folder, for Train ControlNet. "
            "Pictures are read when they are needed, so it may be of any size.",
            search_aliases=["dataset", "fill50k", "load image dataset from folder", "training images"],
            inputs=[
                io.Combo.Input("folder", options=folders(), tooltip="Below ComfyUI's input folder."),
                io.Combo.Input(
                    "layout",
                    options=list(FORMATS),
                    default="auto",
                    tooltip="How it is laid out. pairs: images/, hints/ and captions/ with files of the same names; "
                    "fill50k: prompt.json; imagefolder: metadata.jsonl; webdataset: tar archives.",
                ),
                io.Combo.Input(
                    "captions",
                    options=list(CAPTIONS),
                    default="given",
                    tooltip="given: those of the folder; default: the paper's prompt for all; empty: none.",
                ),
            ],
            outputs=[Socket.Output(display_name="pairs"), io.String.Output(display_name="text")],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The state of its files."""
        return fingerprint(Path(folder_paths.get_input_directory(), folder))

    @classmethod
    def execute(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        folder: str,
        layout: str,
        captions: str,
    ) -> io.NodeOutput:
        """What was found."""
        from ..training.config import DataConfig
        from ..training.data.formats.open import scan
        from ..training.data.pairs import check

        path = str(Path(folder_paths.get_input_directory(), folder))
        config = DataConfig(path=path, format=layout, captions=captions)  # pyright: ignore[reportArgumentType]
        pairs = scan(config)
        check(pairs)
        hints = "with hints" if pairs[0].hint is not None else "without hints: choose a preprocessor"
        text = f"{len(pairs)} pictures {hints}"
        return io.NodeOutput(TrainingFolder(config=config), text, ui=ui.PreviewText(text))
