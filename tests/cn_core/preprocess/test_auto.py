"""Which preprocessor a ControlNet gets: by metadata, type or name; and what stands in for weights that are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.files.checkpoint import read
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.preprocess.auto import NEAREST, SERVE, Evidence, available, choose, map_kind, named, names
from controlnet_kit.cn_core.preprocess.canny import CannySettings
from controlnet_kit.cn_core.preprocess.learned.registry import LEARNED
from controlnet_kit.cn_core.preprocess.registry import PREPROCESSORS

ASSETS = Path(__file__).resolve().parents[3] / "assets" / "controlnets"


def evidence(name: str = "a.safetensors", **fields: object) -> Evidence:
    return Evidence(name=name, metadata=ControlNetMetadata(**fields))  # pyright: ignore[reportArgumentType]


def chosen(evidence: Evidence, *folders: Path) -> str | None:
    entry = choose(evidence, folders).entry
    return entry and entry.name


def with_weights(name: str, folder: Path) -> Path:
    """The folder with files of the names that a preprocessor needs."""
    for file in LEARNED[name].files():
        path = folder / file.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_a_shipped_file_names_its_preprocessor_and_settings():
    metadata = ControlNetMetadata.from_strings(read(ASSETS / "tiny_canny.safetensors").metadata)
    choice = choose(Evidence(name="renamed_depth.safetensors", metadata=metadata), [])
    assert choice.entry is PREPROCESSORS["canny"]
    assert choice.settings == CannySettings(low_threshold=100, high_threshold=200)
    assert choice.text == (
        "Chose canny because its file says that PreprocessCanny made its training hints; "
        "settings: low_threshold 100, high_threshold 200."
    )


@pytest.mark.parametrize("preprocessor", ["softedge", "PreprocessSoftEdge"])
def test_what_was_recorded_is_taken_to_the_letter(preprocessor, tmp_path):
    recorded = evidence(preprocessor=preprocessor, preprocessor_params={"scales": 4})
    choice = choose(recorded, [with_weights("hed", tmp_path)])
    assert choice.entry is PREPROCESSORS["softedge"]
    assert choice.settings == PREPROCESSORS["softedge"].configured({"scales": 4})


def test_recorded_settings_that_do_not_fit_are_said_and_left_out():
    choice = choose(evidence(preprocessor="canny", preprocessor_params={"sigma": 2}), [])
    assert choice.settings == CannySettings()
    assert choice.text.endswith("The recorded settings are not used: The preprocessor canny has no setting sigma.")


def test_ones_own_settings_go_before_recorded_ones_and_have_to_fit():
    recorded = evidence(preprocessor="canny", preprocessor_params={"low_threshold": 10, "high_threshold": 20})
    assert choose(recorded, [], {"low_threshold": 50}).settings == CannySettings(low_threshold=50, high_threshold=20)
    with pytest.raises(ControlNetKitError, match="no setting sigma"):
        choose(recorded, [], {"sigma": 2})


@pytest.mark.parametrize(
    ("evidence", "preprocessor"),
    [
        (evidence("control_v11p_sd15_canny.pth"), "canny"),
        (evidence("control_v11f1e_sd15_tile.pth"), "tile"),
        (evidence("control_v11p_sd15_softedge.pth"), "softedge"),
        (evidence("control_v11p_sd15s2_lineart_anime.pth"), "lineart"),
        (evidence("control_v11p_sd15_mlsd.pth"), "straight_lines"),
        (evidence("control_v11p_sd15_scribble.pth"), "xdog"),
        (evidence("control_v11e_sd15_ip2p.pth"), None),
        (evidence("x_depth.pth", condition="soft edges"), "softedge"),
        (evidence("x_depth.pth", preprocessor="from another program", condition="canny"), "canny"),
        (Evidence(name="union", control_type="canny/lineart/anime_lineart/mlsd", is_union=True), "canny"),
        (Evidence(name="union", control_type="hed/pidi/scribble/ted", is_union=True), "softedge"),
        (Evidence(name="union_canny", control_type="tile", is_union=True), "tile"),
    ],
)
def test_without_weights(evidence, preprocessor):
    assert chosen(evidence) == preprocessor


def test_weights_that_are_there_are_used_and_others_named(tmp_path):
    softedge = evidence("control_v11p_sd15_softedge.pth")
    assert "Not hed: hed needs " in choose(softedge, [tmp_path]).text
    assert "controlnet-kit preprocessors fetch hed" in choose(softedge, [tmp_path]).text
    assert chosen(softedge, with_weights("hed", tmp_path)) == "hed"
    assert "Not" not in choose(softedge, [tmp_path]).text


def test_where_nothing_stands_in_the_command_is_said(tmp_path):
    pose = evidence("control_v11p_sd15_openpose.pth")
    with pytest.raises(ControlNetKitError, match="controlnet-kit preprocessors fetch openpose"):
        choose(pose, [tmp_path])
    with pytest.raises(ControlNetKitError, match="controlnet-kit preprocessors fetch hed"):
        named("hed", [tmp_path])


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (evidence("diffusion_pytorch_model.safetensors"), "Neither the metadata nor the name of diffusion_pytorch"),
        (Evidence(name="promax", is_union=True), "Put Set ControlNet Type before this node"),
        (Evidence(name="promax", control_type="repaint", is_union=True), "use the Inpaint Preprocessor"),
        (evidence("densepose_v1.pth"), "none for dense poses"),
    ],
)
def test_what_cannot_be_chosen_says_what_to_do(evidence, message):
    with pytest.raises(ControlNetKitError, match=message):
        choose(evidence, [])


def test_names_and_ids_of_all_preprocessors():
    for table in (PREPROCESSORS, LEARNED):
        for entry in table.values():
            assert available(entry.name) is available(entry.node_id) is entry
            assert entry.name in names()
    assert available("none of them") is None
    with pytest.raises(ControlNetKitError, match="auto_canny, binary"):
        named("none of them", [])


def test_the_tables_name_preprocessors_that_exist():
    assert set(NEAREST.values()) <= set(PREPROCESSORS)
    assert {name for serving in SERVE.values() for name in serving} <= set(names())


def test_the_kind_is_told_without_weights():
    assert map_kind(evidence("control_v11p_sd15_openpose.pth")) == "pose"
    assert map_kind(evidence("control_v11f1p_sd15_depth.pth")) == "depth"
    assert map_kind(evidence(preprocessor="PreprocessCanny")) == "lines"
    assert map_kind(evidence("control_v11e_sd15_ip2p.pth")) == "picture"
