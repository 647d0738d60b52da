"""Prompts of a data set: given with it, none, the same for all, or written by a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..errors import DataError
from .decoding import Pixels
from .pictures import stamp_of

DEFAULT = "a high-quality, detailed, and professional image"
"""The paper's prompt for pictures without one."""
LONGEST = 40
"""Tokens that the network writes at most."""


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """BLIP, from a folder of transformers' files."""

    folder: Path
    processor: Any
    model: Any

    @property
    def stamp(self) -> str:
        """Folder and state of its weights."""
        return ";".join(stamp_of(path) for path in sorted(self.folder.glob("*.safetensors")))

    @torch.inference_mode()
    def __call__(self, images: Sequence[Pixels]) -> list[str]:
        """One sentence for each picture; the same ones every time."""
        inputs = self.processor(images=[Image.fromarray(image) for image in images], return_tensors="pt").to(
            self.model.device
        )
        tokens = self.model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, num_beams=1)
        return [" ".join(text.split()) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


def open_captioner(folder: str) -> Captioner:
    """Load it. Raises DataError where the folder has no such model; nothing is downloaded."""
    if not Path(folder).is_dir() or not folder:
        raise DataError(
            f"data.captioner is {folder!r}; automatic captions need a folder with the files of a BLIP model."
        )
    from transformers import BlipForConditionalGeneration, BlipProcessor

    try:
        model: Any = BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no BLIP model that transformers can read: {error}") from error
    return Captioner(folder=Path(folder), processor=processor, model=model.eval().requires_grad_(False))
