"""`ControlFidelity`: does the picture follow its hint? The preprocessor runs again, on the picture."""

from __future__ import annotations

from typing import Any, cast

from comfy_api.latest import io, ui
from torch import Tensor

from ..cn_core.image import resize_hint
from ..cn_core.preprocess.auto import Choice
from ..cn_core.preprocess.fidelity.difference import difference
from ..cn_core.preprocess.fidelity.score import Fidelity, fidelity, pose_fidelity
from ..cn_core.preprocess.learned.detector import LearnedPreprocessor
from ..cn_core.preprocess.pose.read import read
from .auto import Loaded, choice_of, control_input, hint_of, preprocessor_input, settings_input
from .boundary import to_image, to_pixels
from .forms import resolution
from .learned import pictures
from .pose import Pose
from .shelf import Shelf

PICTURE = "picture"
"""The measure's name where the hint is a picture as it is."""


def of_keypoints(shelf: Shelf, choice: Choice, image: Tensor, keypoints: object) -> Fidelity | None:
    """By joints; None unless the hint's keypoints are given and the preprocessor finds those of pictures."""
    entry, settings = choice.entry, choice.settings
    if keypoints is None or settings is None or not isinstance(entry, LearnedPreprocessor) or not entry.poses:
        return None
    detector = cast("Any", shelf.detector(entry, settings).detector)
    return pose_fidelity(read(keypoints).frames, detector.keypoints(pictures(image, 0), settings))


def name_of(choice: Choice) -> str:
    """Of the preprocessor."""
    return choice.entry.name if choice.entry else PICTURE


def fidelity_node(shelf: Shelf) -> type[io.ComfyNode]:
    """The node's class; the shelf is that of all learned preprocessors."""

    class ControlFidelity(io.ComfyNode):
        """A number, a text and a picture."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            """What the host shows."""
            return io.Schema(
                node_id="ControlFidelity",
                display_name="Control Fidelity",
                category="ControlNet Kit",
                description="Runs the preprocessor on a generated picture and compares the result with the hint: F1 of "
                "edges, error of depth or normals, overlap of masks and poses, else SSIM.",
                search_aliases=["score", "metric", "compare", "edge F1", "mIoU", "SSIM", "PSNR", "OKS"],
                inputs=[
                    io.Image.Input("image", tooltip="The generated picture, or a batch of them."),
                    io.Image.Input("hint", tooltip="What it was made with: one hint, or one for each picture."),
                    preprocessor_input(),
                    io.Float.Input(
                        "tolerance",
                        default=2.0,
                        min=0.0,
                        max=64.0,
                        step=0.5,
                        tooltip="How far lines may be off and still match, in pixels.",
                    ),
                    resolution(),
                    control_input("Only for auto: the ControlNet.", optional=True),
                    settings_input(),
                    Pose.Input(
                        "keypoints",
                        optional=True,
                        tooltip="Poses: the hint's keypoints. With them joints are compared, else what is drawn.",
                    ),
                ],
                outputs=[
                    io.Float.Output(display_name="score"),
                    io.String.Output(display_name="text"),
                    io.Image.Output(display_name="difference"),
                ],
                is_output_node=True,
            )

        @classmethod
        def execute(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]
            cls,
            image: Tensor,
            hint: Tensor,
            preprocessor: str,
            tolerance: float,
            resolution: int,
            control_net: Loaded | None = None,
            settings: str = "",
            keypoints: object = None,
        ) -> io.NodeOutput:
            """Both are compared at the size of the picture, the hint as ApplyControlNet fits it there."""
            choice = choice_of(preprocessor, control_net, settings)
            size = (image.shape[1], image.shape[2])
            wanted = resize_hint(to_pixels(hint), size, "crop", "auto")
            redone = resize_hint(hint_of(choice, shelf, image, resolution), size, "stretch", "auto")
            found = of_keypoints(shelf, choice, image, keypoints)
            if found is None:
                found = fidelity(name_of(choice), wanted, redone, tolerance_px=tolerance)
            text = f"{found.text}\n{choice.text}"
            shown = difference(name_of(choice), wanted, redone, tolerance_px=tolerance)
            return io.NodeOutput(found.value, text, to_image(shown), ui=ui.PreviewText(text))

    return ControlFidelity
