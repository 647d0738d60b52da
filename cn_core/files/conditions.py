"""What a ControlNet's hints show, and which preprocessor makes them, by the names that public files have.

Sources: file names of lllyasviel's ControlNet 1.0 and 1.1, sd_control_collection, xinsir's, TencentARC's and kohya's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

POOLED_SUFFIXES = ("_shuffle", "_shuffle_fp16")
"""Ends of the file names of ControlNets whose residuals are averaged over the picture; the host goes by them too."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One row of the table."""

    shows: str
    """As `metadata.ControlNetMetadata.condition` says it."""
    preprocessor: str | None
    """Short name of the preprocessor; None: the hint is a picture as it is."""
    words: str
    """Regular expression for a file name in small letters."""


def whole(*words: str) -> str:
    """An expression for words that are no part of longer ones; digits and separators end a word."""
    return rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])"


CONDITIONS = (
    Condition(shows="anime line art", preprocessor="lineart_anime", words=r"(lineart|line_art).?anime|manga"),
    Condition(shows="line art", preprocessor="lineart", words=r"line.?art|anyline|misto.?line"),
    Condition(shows="canny edges", preprocessor="canny", words="canny"),
    Condition(shows="straight lines", preprocessor="mlsd", words=r"m.?lsd|hough"),
    Condition(shows="soft edges", preprocessor="softedge", words=r"soft.?edge|pidi|teed|" + whole("hed")),
    Condition(shows="a scribble", preprocessor="scribble", words=r"scribble|sketch|xdog|doodle"),
    Condition(shows="dense pose", preprocessor="densepose", words=r"dense.?pose"),
    Condition(shows="animal pose", preprocessor="animalpose", words=r"animal"),
    Condition(shows="human pose", preprocessor="openpose", words=r"open.?pose|dw.?pose|key.?pose|" + whole("pose")),
    Condition(shows="face landmarks", preprocessor="face_mesh", words=r"mediapipe|face.?(mesh|landmark)"),
    Condition(shows="depth", preprocessor="depth", words="depth|midas|" + whole("zoe", "leres")),
    Condition(shows="surface normals", preprocessor="normal", words=r"normal.?bae|normal.?map|" + whole("normals?")),
    Condition(shows="segments of anything", preprocessor="sam", words=r"segment.?anything|" + whole("sam")),
    Condition(shows="segmentation", preprocessor="segmentation", words=r"segment|" + whole("seg", "ade20k")),
    Condition(shows="content shuffle", preprocessor="shuffle", words="shuffle"),
    Condition(shows="the picture to edit", preprocessor=None, words=r"ip2p|pix2pix"),
    Condition(shows="a picture with a hole", preprocessor="inpaint", words=r"in.?paint|out.?paint|repaint"),
    Condition(shows="a small or blurred picture", preprocessor="tile", words=whole("tile", "ttplanet", "upscaler?")),
    Condition(shows="a blurred picture", preprocessor="blur", words=whole("blur", "lq")),
    Condition(
        shows="a pattern such as a QR code", preprocessor=None, words=r"qr.?code|qr.?pattern|illusion|" + whole("qr")
    ),
    Condition(shows="brightness", preprocessor="luminance", words=r"brightness|illuminat|luminance|" + whole("light")),
    Condition(shows="greyscale", preprocessor="luminance", words="recolor|" + whole("gr[ae]y(scale)?")),
    Condition(shows="a grid of colours", preprocessor="color", words=whole("colou?r")),
)
"""Specific before broad; the first that matches is taken."""


def by_name(name: str) -> Condition | None:
    """The condition that a file name tells, such as that of control_v11p_sd15_canny.pth."""
    stem = Path(name).stem.lower()
    return next((row for row in CONDITIONS if re.search(row.words, stem)), None)


def preprocessor_of(shows: str) -> str | None:
    """The preprocessor for a condition in words, from a table's row, a file name or a union's type."""
    known = next((row for row in CONDITIONS if row.shows == shows), None) or by_name(shows)
    return known.preprocessor if known else None


def is_pooled(stem: str) -> bool:
    """Whether a file of this name, without its suffix, has residuals that are averaged over the picture."""
    return stem.endswith(POOLED_SUFFIXES)
