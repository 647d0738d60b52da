"""Preprocessors by the names of public files."""

from __future__ import annotations

import pytest
from controlnet_kit.cn_core.files.conditions import by_name, preprocessor_of


@pytest.mark.parametrize(
    ("name", "preprocessor"),
    [
        *(("control_v11p_sd15_canny.pth", "canny"), ("control_v11f1p_sd15_depth_fp16.safetensors", "depth")),
        *(("control_v11p_sd15_openpose.pth", "openpose"), ("control_v11p_sd15_softedge.pth", "softedge")),
        *(("control_sd15_hed.pth", "softedge"), ("control_v11p_sd15_scribble.pth", "scribble")),
        *(("control_v11p_sd15_lineart.pth", "lineart"), ("control_v11p_sd15s2_lineart_anime.pth", "lineart_anime")),
        *(("control_v11p_sd15_mlsd.pth", "mlsd"), ("control_v11p_sd15_normalbae.pth", "normal")),
        *(("control_v11p_sd15_seg.pth", "segmentation"), ("control_v11f1e_sd15_tile.pth", "tile")),
        *(("control_v11p_sd15_inpaint.pth", "inpaint"), ("control_v11e_sd15_shuffle.pth", "shuffle")),
        *(("control_v11e_sd15_ip2p.pth", None), ("control_v1p_sd15_qrcode_monster.safetensors", None)),
        *(("control_v1p_sd15_brightness.safetensors", "luminance"), ("thibaud_xl_openpose.safetensors", "openpose")),
        *(("sai_xl_sketch_256lora.safetensors", "scribble"), ("kohya_controllllite_xl_blur_anime.safetensors", "blur")),
        *(("t2i-adapter_xl_openpose.safetensors", "openpose"), ("mistoLine_fp16.safetensors", "lineart")),
        *(("controlnet-depth-zoe-sdxl.safetensors", "depth"), ("TTPLANET_Controlnet_Tile_v2.safetensors", "tile")),
        *(("t2iadapter_keypose_sd14v1.pth", "openpose"), ("t2iadapter_color_sd14v1.pth", "color")),
        *(("control_v2p_sd15_mediapipe_face.safetensors", "face_mesh"), ("densepose_v1.pth", "densepose")),
    ],
)
def test_conditions_by_file_name(name, preprocessor):
    found = by_name(name)
    assert found is not None and found.preprocessor == preprocessor
    assert preprocessor_of(found.shows) == preprocessor


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "promax.safetensors", "segovia_bold.pth", ""])
def test_names_that_tell_nothing(name):
    assert by_name(name) is None
