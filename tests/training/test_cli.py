"""The command line: one short real run from flags to a file that the pack's loader knows."""

from pathlib import Path

import pytest
import torch
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.files.detect import detect
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.cn_core.networks.config import TINY
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.training import base as bases
from controlnet_kit.training import cli
from controlnet_kit.training.tiny.cache import Compositions, load, save

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture
def flags(tmp_path: Path, compositions: Compositions) -> list[str]:
    """A run of two steps."""
    save(compositions, tmp_path / "cache.safetensors")
    paths = ["--base", str(ASSETS), "--cache", str(tmp_path / "cache.safetensors")]
    return [*paths, "--output", str(tmp_path / "out" / "new.safetensors"), "--steps", "2", "--batch", "2"]


@pytest.mark.parametrize("condition", ["canny", "silhouette"])
def test_a_run_writes_a_controlnet_with_its_story(tmp_path: Path, flags: list[str], condition: str) -> None:
    cli.main(["--condition", condition, *flags])
    written = checkpoint.read(tmp_path / "out" / "new.safetensors")
    detected = detect(written.tensors)
    assert detected is not None and detected.config == TINY and detected.layout == "ldm"
    checkpoint.load_strictly(ControlNet(TINY), written.tensors, name="new")
    assert all(value.dtype == torch.float16 for value in written.tensors.values())
    story = ControlNetMetadata.from_strings(written.metadata)
    assert (story.condition, story.steps, story.samples) == (condition, 2, 4)
    assert story.base_sha256 == bases.load(ASSETS).sha256


@pytest.mark.parametrize(
    ("changed", "reason"),
    [(["--condition", "depth"], "invalid choice"), (["--condition", "canny", "--steps", "0"], "at least 1")],
)
def test_bad_flags_say_why_before_any_work(
    flags: list[str], changed: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([*flags, *changed])
    assert reason in capsys.readouterr().err


def test_a_missing_cache_is_made(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache.safetensors").unlink()
    cli.main(["--condition", "canny", "--compositions", "4", *flags])
    assert len(load(tmp_path / "cache.safetensors").latents) == 4
