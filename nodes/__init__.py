"""ComfyUI nodes: the only folder that knows the host. Each node converts, calls the core and returns."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .apply import ApplyControlNet
from .auto import auto_node
from .check_map import CheckControlMap
from .effect_map import ControlNetEffectMap, ControlNetStrengthSweep, RecordControlNet
from .face_landmarks import PreprocessFaceLandmarks
from .fidelity import fidelity_node
from .fit import FitControlHint, MaskFromControlHint
from .inspect import InspectControlNet
from .learned import learned_nodes
from .load import LoadControlNet
from .merge import MergeControlNet
from .modulation import ControlNetFrames, ControlNetSaving, ControlNetStacking, ControlNetWeights
from .pose import PoseKeypointsAdapt, PoseKeypointsFromJSON, PoseKeypointsToJSON
from .pose_detect import pose_nodes
from .pose_edit import (
    PoseKeypointsDraw,
    PoseKeypointsPick,
    PoseKeypointsPlace,
    PoseKeypointsProportions,
    PoseKeypointsRegions,
    PoseKeypointsSmooth,
)
from .pose_files import PoseKeypointsLoad, PoseKeypointsSave
from .preflight import PreflightControlNet
from .preprocess import PREPROCESSOR_NODES
from .preprocess_geometry import GEOMETRY_NODES
from .preprocess_pairs import PAIR_NODES
from .save import SaveControlNet
from .schedule import ControlNetKeyframe, ControlNetSchedule, ControlNetWindow
from .shelf import WEIGHTS, Shelf
from .tiny import ASSETS, LoadTinyBase
from .train import TrainControlNet
from .train_pairs import LoadTrainingPairs
from .union import AddControlNetHint, SetControlNetType


class ControlNetKitExtension(ComfyExtension):
    """What the host gets from this pack."""

    async def on_load(self) -> None:
        """Let every ControlNet loader, the host's too, list the ControlNets of the embedded base.

        And give preprocessors a folder for weights, besides those that extra_model_paths.yaml names.
        """
        folder_paths.add_model_folder_path("controlnet", str(ASSETS / "controlnets"))
        folder_paths.add_model_folder_path(WEIGHTS, str(Path(folder_paths.models_dir) / WEIGHTS))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes, in the order of a first workflow."""
        shelf = Shelf()
        return [
            LoadControlNet,
            ApplyControlNet,
            LoadTinyBase,
            SetControlNetType,
            AddControlNetHint,
            ControlNetWindow,
            ControlNetSchedule,
            ControlNetKeyframe,
            ControlNetWeights,
            ControlNetFrames,
            ControlNetStacking,
            ControlNetSaving,
            ControlNetStrengthSweep,
            RecordControlNet,
            ControlNetEffectMap,
            PreflightControlNet,
            FitControlHint,
            MaskFromControlHint,
            InspectControlNet,
            SaveControlNet,
            MergeControlNet,
            PoseKeypointsLoad,
            PoseKeypointsSave,
            PoseKeypointsFromJSON,
            PoseKeypointsToJSON,
            PoseKeypointsAdapt,
            PoseKeypointsDraw,
            PoseKeypointsPlace,
            PoseKeypointsProportions,
            PoseKeypointsSmooth,
            PoseKeypointsPick,
            PoseKeypointsRegions,
            *PREPROCESSOR_NODES.values(),
            *PAIR_NODES,
            *GEOMETRY_NODES,
            *learned_nodes(shelf).values(),
            *pose_nodes(shelf).values(),
            PreprocessFaceLandmarks,
            auto_node(shelf),
            CheckControlMap,
            fidelity_node(shelf),
            LoadTrainingPairs,
            TrainControlNet,
        ]
