"""Prompts of a data set: given with it, none, the same for all, or written by a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..config import DataConfig
from ..errors import DataError
from .decoding import Pixels
from .lending import lending
from .memo import Memo
from .pictures import hashed, stamp_of
from .plan import Captioned
from .store import Progress
from .survey import Surveyed, threaded

DEFAULT = "a high-quality, detailed, and professional image"
"""The paper's prompt for pictures without one."""
LONGEST = 40
"""Tokens that the network writes at most."""
AT_ONCE = 16
"""Pictures that it sees."""


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """BLIP, from a folder of transformers' files."""

    folder: Path
    processor: Any
    model: Any

    @property
    def stamp(self) -> str:
        """A hash of the folder and the state of all of its files: weights of any kind, settings and words."""
        return hashed([stamp_of(path) for path in sorted(self.folder.iterdir()) if path.is_file()])

    def modules(self) -> tuple[nn.Module, ...]:
        """The network."""
        return (self.model,)

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


def captioned(
    found: Sequence[Surveyed],
    config: DataConfig,
    captioner: Captioner | None,
    memo: Memo,
    device: torch.device,
    progress: Progress,
) -> list[Captioned]:
    """The prompts of all pairs as the settings say, or as a network writes them, on the device; those are kept."""
    if captioner is not None:
        with lending(device) as lend:
            lend(captioner)
            texts = written(found, captioner, config.workers, memo, progress)
    elif config.captions == "given":
        texts = [one.pair.caption or "" for one in found]
    else:
        texts = [DEFAULT if config.captions == "default" else ""] * len(found)
    return [Captioned(found=one, caption=text) for one, text in zip(found, texts, strict=True)]


def written(found: Sequence[Surveyed], captioner: Captioner, workers: int, memo: Memo, progress: Progress) -> list[str]:
    """Captions by a network, from the memo where it has them."""
    stamp = captioner.stamp
    keys = [f"caption {one.image.digest} {stamp}" for one in found]
    known = memo.read_all(keys)
    missing = {key: one for key, one in zip(keys, found, strict=True) if key not in known}
    names = list(missing)
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        pictures = list(threaded(lambda key: missing[key].pair.image.read(), part, workers))
        fresh = dict(zip(part, captioner(pictures), strict=True))
        memo.write_all(fresh)
        known |= fresh
        progress("captions", len(keys) - len(names) + start + len(part), len(keys))
    return [known[key] for key in keys]
