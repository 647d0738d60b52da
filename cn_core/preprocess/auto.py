"""Which preprocessor makes hints for a ControlNet: by what its file says, else by its type, else by its name.

choice = choose(Evidence(name="control_v11p_sd15_canny.pth"), folders)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import ControlNetKitError
from ..files.conditions import Condition, by_name, preprocessor_of
from ..files.metadata import ControlNetMetadata
from .learned.detector import LearnedPreprocessor
from .learned.registry import LEARNED
from .map_kinds import MapKind, kind_of
from .preprocessor import Preprocessor
from .registry import PREPROCESSORS
from .settings import Settings
from .weights import find, locate

Entry: TypeAlias = "Preprocessor[Any] | LearnedPreprocessor[Any]"

SERVE: Mapping[str, tuple[str, ...]] = {
    "softedge": ("hed", "controlnet_hed", "pidinet", "teed", "softedge"),
    "lineart": ("lineart_realistic", "lineart"),
    "lineart_anime": ("lineart_anime", "lineart"),
    "scribble": ("scribble_hed", "xdog"),
    "mlsd": ("mlsd", "mlsd_torch", "straight_lines"),
    "depth": ("depth", "depth_midas", "depth_zoe"),
    "openpose": ("openpose", "dwpose", "openpose_cmu"),
    "segmentation": ("segmentation", "segmentation_oneformer"),
}
"""What `conditions` calls a preprocessor -> those that serve, the best first; all others go by that name."""
NEAREST: Mapping[str, str] = {
    **dict.fromkeys(("hed", "controlnet_hed", "pidinet", "teed"), "softedge"),
    **dict.fromkeys(("lineart_realistic", "lineart_anime", "anyline"), "lineart"),
    **dict.fromkeys(("mlsd", "mlsd_torch"), "straight_lines"),
    "scribble_hed": "xdog",
}
"""Learned preprocessor -> the one without weights that stands in for it."""
ELSEWHERE: Mapping[str, str] = {
    "inpaint": "It takes a mask: use the Inpaint Preprocessor.",
    "densepose": "This pack has none for dense poses: connect a finished map.",
    "animalpose": "This pack has none for animals: connect a finished map.",
}
"""What no entry of the tables makes, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a ControlNet."""

    name: str
    """Of its file."""
    metadata: ControlNetMetadata = field(default_factory=ControlNetMetadata)
    control_type: str | None = None
    """Of a union ControlNet: the type that was set, all names of it: "hed/pidi/scribble/ted"."""
    is_union: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to run, and why."""

    entry: Entry | None
    """None: the hint is the picture as it is."""
    settings: Settings | None
    text: str
    """ "Chose canny because ..., settings ...", and what else there is to say."""


def available(name: str) -> Entry | None:
    """The preprocessor of a short name ("canny") or of a node's id ("PreprocessCanny"), learned or not."""
    for table in (PREPROCESSORS, LEARNED):
        for entry in table.values():
            if name in (entry.name, entry.node_id):
                return entry
    return None


def names() -> list[str]:
    """Of all preprocessors."""
    return sorted({*PREPROCESSORS, *LEARNED})


def choose(evidence: Evidence, folders: Sequence[Path], overrides: Mapping[str, object] | None = None) -> Choice:
    """The preprocessor for a ControlNet and its settings: those recorded with it, else defaults; `overrides` go first.

    folders: where weights of learned ones are. Raises ControlNetKitError when nothing tells, none does it or its
    weights are missing.
    """
    recorded = available(evidence.metadata.preprocessor or "")
    if recorded is not None:
        reason = f"its file says that {evidence.metadata.preprocessor} made its training hints"
        params = evidence.metadata.preprocessor_params or {}
        serving = [recorded.name, *filter(None, [NEAREST.get(recorded.name)])]
        return first(serving, reason, folders, {recorded.name: params}, overrides or {})
    wanted, reason = told(evidence)
    if wanted is None:
        return Choice(entry=None, settings=None, text=f"Took the picture as it is, because {reason}.")
    serving = [name for name in SERVE.get(wanted, (wanted,)) if available(name) is not None]
    if not serving:
        raise ControlNetKitError(f"No preprocessor makes {wanted} hints. {ELSEWHERE.get(wanted, 'Choose another.')}")
    return first(serving, reason, folders, {}, overrides or {})


def named(name: str, folders: Sequence[Path], overrides: Mapping[str, object] | None = None) -> Choice:
    """The preprocessor of this very name; raises ControlNetKitError where it cannot run."""
    entry = available(name)
    if entry is None:
        raise ControlNetKitError(f'There is no preprocessor "{name}". Choose one of: {", ".join(names())}.')
    if (missing := lacking(entry, folders)) is not None:
        raise missing
    return described(entry, "it was asked for", entry.configured(overrides or {}), [])


def map_kind(evidence: Evidence) -> MapKind:
    """The kind of maps that a ControlNet takes, whether or not a preprocessor can run. Raises as `told` does."""
    recorded = available(evidence.metadata.preprocessor or "")
    return kind_of(recorded.name if recorded is not None else told(evidence)[0] or "")


def told(evidence: Evidence) -> tuple[str | None, str]:
    """(what `conditions` calls the preprocessor, None for a picture as it is; the reason).

    Raises ControlNetKitError when nothing tells.
    """
    condition = evidence.metadata.condition
    if condition and (found := preprocessor_of(condition)):
        return found, f"its file says that its hints show {condition}"
    if evidence.control_type:
        first = evidence.control_type.split("/")[0]
        if found := preprocessor_of(TYPES.get(first, first)):
            return found, f"its type is set to {evidence.control_type}"
    if evidence.is_union:
        raise ControlNetKitError(
            f"{evidence.name} is a union ControlNet without a type. Put Set ControlNet Type before this node, or "
            "choose a preprocessor."
        )
    row: Condition | None = by_name(evidence.name)
    if row is None:
        raise ControlNetKitError(
            f"Neither the metadata nor the name of {evidence.name} tells which hints it takes. Choose a preprocessor."
        )
    return row.preprocessor, f"the name {evidence.name} tells that its hints show {row.shows}"


TYPES = {"pidi": "pidinet", "ted": "teed", "repaint": "inpaint"}
"""Names of union types that `conditions` does not know."""


def first(
    serving: Sequence[str],
    reason: str,
    folders: Sequence[Path],
    recorded: Mapping[str, Mapping[str, object]],
    overrides: Mapping[str, object],
) -> Choice:
    """The first of these that can run; recorded: settings by preprocessor."""
    notes: list[str] = []
    for name in serving:
        entry = available(name)
        if entry is None:
            continue
        if (missing := lacking(entry, folders)) is not None:
            notes.append(f"Not {name}: {missing}")
            continue
        try:
            settings = entry.configured({**recorded.get(name, {}), **overrides})
        except ControlNetKitError as error:
            if overrides:
                raise
            settings = entry.settings()
            notes.append(f"The recorded settings are not used: {error}")
        return described(entry, reason, settings, notes)
    raise ControlNetKitError(notes[0].removeprefix(f"Not {serving[0]}: "))


def described(entry: Entry, reason: str, settings: Settings, notes: Sequence[str]) -> Choice:
    """The choice with its text."""
    values = ", ".join(f"{name} {value}" for name, value in vars(settings).items()) or "none"
    text = " ".join([f"Chose {entry.name} because {reason}; settings: {values}.", *notes])
    return Choice(entry=entry, settings=settings, text=text)


def lacking(entry: Entry, folders: Sequence[Path]) -> ControlNetKitError | None:
    """What keeps a preprocessor from running, before anything is loaded; None if nothing does."""
    if isinstance(entry, Preprocessor):
        return None
    missing = [file for file in entry.files() if locate(file, folders) is None]
    try:
        entry.check_packages()
        if missing:
            find(missing[0], folders, entry.name, entry.only(entry.files()))
    except ControlNetKitError as error:
        return error
    return None
