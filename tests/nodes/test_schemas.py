"""What the host is told about the nodes, and that it loads the pack."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import comfy_extras
import controlnet_kit
import folder_paths
import pytest
from controlnet_kit.cn_core.preprocess.preprocessor import GROUPS
from controlnet_kit.nodes.generated import category

import nodes

ROOT = Path(controlnet_kit.__file__).parent
IDS = re.findall(
    r"\w+",
    """
    LoadControlNet ApplyControlNet LoadTinyBase SetControlNetType AddControlNetHint FitControlHint MaskFromControlHint
    ControlNetWindow ControlNetSchedule ControlNetKeyframe ControlNetWeights ControlNetFrames ControlNetStacking
    ControlNetSaving ControlNetStrengthSweep RecordControlNet ControlNetEffectMap PreflightControlNet
    InspectControlNet SaveControlNet MergeControlNet

    PoseKeypointsLoad PoseKeypointsSave PoseKeypointsFromJSON PoseKeypointsToJSON PoseKeypointsAdapt PoseKeypointsDraw
    PoseKeypointsPlace PoseKeypointsProportions PoseKeypointsSmooth PoseKeypointsPick PoseKeypointsRegions

    PreprocessAutoCanny PreprocessBinary PreprocessBlur PreprocessCanny PreprocessColorGrid PreprocessColorPalette
    PreprocessDepthRemap PreprocessGrey PreprocessIntensity PreprocessInvert PreprocessLineart PreprocessLuminance
    PreprocessNormalFromDepth PreprocessPencil PreprocessScribble PreprocessSegmentationPalette PreprocessShuffle
    PreprocessSoftEdge PreprocessStraightLines PreprocessThreshold PreprocessTile PreprocessTileGuided PreprocessXDoG

    PreprocessInpaint PreprocessOutpaint PreprocessColorFix PreprocessStereoDepth PreprocessOpticalFlow
    PreprocessGeometryDepth PreprocessGeometryNormal

    PreprocessAnyLine PreprocessControlNetHED PreprocessDepth PreprocessDepthMiDaS PreprocessDepthZoe
    PreprocessFaceDepth PreprocessFaceMesh PreprocessHED PreprocessLineartAnime PreprocessLineartRealistic
    PreprocessMLSD PreprocessMLSDTorch PreprocessNormalBAE PreprocessOneFormer PreprocessPersonMask PreprocessPiDiNet
    PreprocessSAM PreprocessScribbleHED PreprocessSegmentation PreprocessTEED

    PreprocessBlazePose PreprocessDWPose PreprocessOpenPoseCMU PreprocessFaceLandmarks

    AutoPreprocessor CheckControlMap ControlFidelity

    LoadTrainingPairs TrainControlNet
    """,
)
"""Of all nodes that were ever released; add to them."""


async def node_list() -> list:
    extension = await controlnet_kit.comfy_entrypoint()
    return await extension.get_node_list()


NODES = asyncio.run(node_list())


def test_ids_are_for_good_and_nobody_elses():
    ids = [node.GET_SCHEMA().node_id for node in NODES]
    assert ids == [node.__name__ for node in NODES]
    assert sorted(ids) == sorted(IDS)
    sources = [
        path.read_text(encoding="utf-8") for folder in comfy_extras.__path__ for path in Path(folder).glob("*.py")
    ]
    taken = {*nodes.NODE_CLASS_MAPPINGS, *re.findall(r"node_id=\"(\w+)\"|^class (\w+)", "\n".join(sources))}
    assert taken.isdisjoint(IDS)


@pytest.mark.parametrize("node", NODES)
def test_schemas_are_valid_and_say_what_every_input_is(node):
    schema = node.GET_SCHEMA()
    schema.validate()
    assert schema.description
    assert all(field.tooltip for field in schema.inputs)


def test_nodes_are_found_by_name_and_by_what_others_call_them():
    schemas = [node.GET_SCHEMA() for node in NODES]
    assert len({schema.display_name for schema in schemas}) == len(schemas)
    for schema in schemas:
        assert schema.category.split("/")[0] == "ControlNet Kit"
        words = [word.lower() for word in schema.search_aliases]
        assert len(set(words)) == len(words)
        if schema.node_id.startswith("Preprocess"):
            assert words and schema.category in [category(group) for group in GROUPS]


def test_apply_has_the_fields_of_the_hosts_node():
    ours, host = NODES[1].INPUT_TYPES(), nodes.ControlNetApplyAdvanced.INPUT_TYPES()
    for section in ("required", "optional"):
        assert list(ours[section])[: len(host[section])] == list(host[section])
        for name, (kind, *options) in host[section].items():
            assert ours[section][name][0] == kind
            assert options == [] or options[0].items() <= ours[section][name][1].items()


def test_the_host_loads_the_pack_and_lists_the_controlnets_of_the_embedded_base(monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "controlnet", (["x"], {".safetensors"}))
    mappings = dict(nodes.NODE_CLASS_MAPPINGS)
    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", mappings)
    assert asyncio.run(nodes.load_custom_node(str(ROOT), module_parent="custom_nodes"))
    assert set(IDS) <= set(mappings)
    assert str(ROOT / "assets" / "controlnets") in folder_paths.get_folder_paths("controlnet")
    weights = folder_paths.get_folder_paths("controlnet_preprocessors")
    assert str(Path(folder_paths.models_dir) / "controlnet_preprocessors") in weights
