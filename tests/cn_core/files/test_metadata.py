"""A file's description of itself: there and back, and what strangers may write into it."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest
import torch
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.files.checkpoint import read, write
from controlnet_kit.cn_core.files.metadata import RULES, ControlNetMetadata

FULL = ControlNetMetadata(
    version="0.1.0",
    family="SD 1.x",
    condition="canny edges",
    preprocessor="PreprocessCanny",
    preprocessor_params={"low": 0.4, "high": 0.8, "resolution": 512, "thin": True, "kernel": "sobel"},
    hint_range=(0, 1),
    resolution=512,
    base_sha256="0123456789abcdef" * 4,
    base_name="tiny-emoji",
    decoder="edges-decoder.safetensors",
    steps=3000,
    samples=96_000,
    dataset_sha256="f" * 64,
    fidelity={"edge_f1": 0.81},
    strength=0.9,
    start_percent=0.0,
    end_percent=0.8,
    licence="CC0-1.0",
)


def test_every_field_has_a_rule():
    assert [field.name for field in fields(ControlNetMetadata)] == list(RULES)
    assert None not in asdict(FULL).values()


def test_there_and_back_through_a_file(tmp_path):
    write(tmp_path / "x.safetensors", {"w": torch.ones(1)}, FULL.to_strings())
    assert ControlNetMetadata.from_strings(read(tmp_path / "x.safetensors").metadata) == FULL


def test_what_is_not_known_is_not_written():
    assert ControlNetMetadata.from_strings({}) == ControlNetMetadata()
    strings = ControlNetMetadata(condition="canny").to_strings()
    assert [key for key in strings if key.startswith("controlnet_kit.")] == ["controlnet_kit.condition"]


def test_modelspec_says_the_same():
    strings = FULL.to_strings()
    assert {
        key.removeprefix("modelspec."): value for key, value in strings.items() if key.startswith("modelspec.")
    } == {
        "sai_model_spec": "1.0.0",
        "implementation": "https://github.com/lllyasviel/ControlNet",
        "architecture": "stable-diffusion-v1/controlnet",
        "title": "ControlNet, canny edges",
        "resolution": "512x512",
        "license": "CC0-1.0",
    }


@pytest.mark.parametrize(
    ("name", "string"),
    [
        *[("base_name", text) for text in ("", "x" * 65, "../../etc/passwd", "C:\\x", "a\nb", "a\u202eb", "\ud800")],
        *[("base_sha256", text) for text in ("0" * 63, "Z" * 64, "0" * 64 + "\n", "../" + "0" * 61)],
        *[("steps", text) for text in ("", "-1", "1.5", "1e400", "NaN", "true", '"3"', "9" * 400, "9" * 3000, "[3]")],
        *[("resolution", text) for text in ("0", "7", "16385", "512.5", "null")],
        *[("strength", text) for text in ("-0.1", "10.1", "Infinity", "nan", '"1"', "0x1")],
        *[("end_percent", text) for text in ("1.01", "-1", "{}")],
        *[("hint_range", text) for text in ("[1, 0]", "[0]", "[0, 1, 2]", "[0, NaN]", "0", '["a", "b"]', "[0, [1]]")],
        *[("preprocessor_params", text) for text in ("[]", '{"a": [1]}', '{"a": null}', '{"": 1}', '{"a/b": 1}', "{")],
        ("preprocessor_params", '{"a": "/etc/passwd"}'),
        ("preprocessor_params", "{" + ",".join(f'"k{i}": 1' for i in range(33)) + "}"),
        ("preprocessor_params", "[" * 2000),
        ("preprocessor_params", '{"a": 1}' + " " * 3000),
        *[("fidelity", text) for text in ('{"f1": "high"}', '{"f1": 1e999}', '{"f1": true}')],
    ],
)
def test_values_out_of_bounds_are_ignored_one_by_one(name, string):
    strings = {**FULL.to_strings(), f"controlnet_kit.{name}": string}
    assert asdict(ControlNetMetadata.from_strings(strings)) == {**asdict(FULL), name: None}


def test_unknown_keys_are_kept_out():
    strings = {"controlnet_kit.__class__": "x", "controlnet_kit.execute": "x", "modelspec.title": "x", "steps": "3"}
    assert ControlNetMetadata.from_strings(strings) == ControlNetMetadata()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"base_name": "models/base"},
            r"base_name must be 1 to 64 printable characters without / \\ :, got 'models/base'",
        ),
        ({"strength": 11}, r"strength must be a number from 0 to 10, got 11"),
        ({"hint_range": (1, 0)}, r"hint_range must be two numbers, the lower one first, got \(1, 0\)"),
        ({"steps": 1.0}, r"steps must be a whole number from 0, got 1\.0"),
    ],
)
def test_we_write_no_such_values_ourselves(values, message):
    with pytest.raises(ControlNetKitError, match=message):
        ControlNetMetadata(**values)
