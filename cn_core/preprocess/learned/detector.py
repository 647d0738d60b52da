"""What all preprocessors with networks have in common: how they are named and set, what they need, how they load.

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Protocol

from torch import Tensor, nn

from ...errors import ControlNetKitError
from ..pose.keypoints import Frame
from ..preprocessor import AnySettings, Group, configured
from ..weights import Weights, find


class Detector(Protocol):
    """A loaded network with what it does before and after: pictures in, hints out.

    Its networks are in eval mode, without gradients, float32 and on the CPU when they come from `open`. The caller
    may move them to any device and to a smaller type, and runs them without gradients.
    """

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What may move between devices; () for runtimes of their own, which stay on the CPU."""
        ...

    def __call__(self, images: Tensor, settings: Any, /) -> Tensor:
        """B 3 H W in [0, 1] -> B 3 H W in [0, 1], of the same size, dtype and device; every picture by itself.

        Settings are those of its entry. A network gets `like(images, module)`, the caller its result `.to(images)`.
        """
        ...


class RawDetector(Detector, Protocol):
    """One whose hints depend on all pictures of a batch in their last step, such as the range of a video's depth."""

    def raw(self, images: Tensor, settings: Any, /) -> Tensor:
        """B 3 H W in [0, 1] -> B 1 H W float32 on the same device: every picture by itself."""
        ...


class PoseDetector(Detector, Protocol):
    """One that finds people's keypoints and draws them."""

    def keypoints(self, images: Tensor, settings: Any, /) -> tuple[Frame, ...]:
        """B 3 H W in [0, 1] -> the people of each picture, the most certain first, without drawing them."""
        ...


@dataclass(frozen=True, kw_only=True)
class LearnedPreprocessor(Generic[AnySettings]):
    """An entry of the table: all that is known of it without its files."""

    name: str
    """Short, as `cn_core.files.conditions` has it."""
    node_id: str
    """Of its node, for good: trained files name it in their metadata."""
    title: str
    group: Group
    description: str
    settings: type[AnySettings]
    weights: tuple[Weights, ...]
    """All files that it may take."""
    load: Callable[[tuple[Path, ...]], Detector]
    """From the files that the settings need, in their order. Raises WeightsError for contents of another kind."""
    needs: Callable[[AnySettings], tuple[Weights, ...]] | None = None
    """Those of the files that these settings take; None: all of them, whatever the settings."""
    together: Callable[[Tensor, AnySettings], Tensor] | None = None
    """For `RawDetector`s, the last step, for all pictures at once: what `raw` gave, B 1 H W -> B 3 H W in [0, 1]."""
    packages: tuple[str, ...] = ()
    """Names for pip of what it imports beyond the requirements of the core."""
    aliases: tuple[str, ...] = ()
    """Other words that people search it by."""
    half: bool = True
    """Whether its networks may run in float16 (or bfloat16)."""
    poses: bool = False
    """Whether its detectors are `PoseDetector`s, its settings `DrawSettings`: its node gives keypoints as well."""

    def files(self, settings: AnySettings | None = None) -> tuple[Weights, ...]:
        """What `open` wants to find."""
        return self.weights if self.needs is None else self.needs(settings or self.settings())

    def check_packages(self) -> None:
        """Raise ControlNetKitError for Python packages that it needs and that are not installed."""
        if missing := [name for name in self.packages if find_spec(name.replace("-", "_")) is None]:
            raise ControlNetKitError(
                f"The preprocessor {self.name} needs Python packages that are not installed: {', '.join(missing)}. "
                f"Run: python -m pip install {' '.join(missing)}"
            )

    def paths(self, folders: Sequence[Path], settings: AnySettings | None = None) -> tuple[Path, ...]:
        """Where the files are that the settings need. Raises WeightsError for those that are missing or damaged."""
        wanted = self.files(settings)
        return tuple(find(file, folders, self.name, self.only(wanted)) for file in wanted)

    def only(self, wanted: Sequence[Weights]) -> tuple[str, ...]:
        """How `preprocessors fetch` is told to get no more than these: by folder where it has no others; (): all."""
        others = set(self.weights) - set(wanted)
        shared = {"", *(file.folder for file in others)}
        names = dict.fromkeys(file.file if file.folder in shared else file.folder for file in wanted)
        return tuple(names) if others else ()

    def open(self, folders: Sequence[Path], settings: AnySettings | None = None) -> Detector:
        """Find the files and load them.

        Raises ControlNetKitError for packages that are not installed, WeightsError for files that are missing or
        damaged.
        """
        self.check_packages()
        return self.load(self.paths(folders, settings))

    def configured(self, values: Mapping[str, object]) -> AnySettings:
        """Settings from plain values, such as a file's metadata; what is not named has its default.

        Raises ControlNetKitError for names it does not have and values it does not allow.
        """
        return configured(self.settings, values, self.name)


def like(images: Tensor, module: nn.Module) -> Tensor:
    """The same pictures in the dtype and on the device of a network."""
    return images.to(next(module.parameters()))
