"""`controlnet-kit train` from its words to the file, and what it says when it cannot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.training.commands import main
from controlnet_kit.training.output import checkpoints
from controlnet_kit.training.output.checkpoints import Checkpoints
from controlnet_kit.training.tables import parse
from diffusers.models.controlnets.controlnet import ControlNetModel
from small_disk import small_disk

TINY_WORLD = [
    *(
        "fill50k-tiny",
        "--data.format",
        "tiny-world",
        "--data.count",
        "12",
        "--hints",
        "canny",
        "--data.validation",
        "2",
    ),
    *("--batch", "2", "--precision", "fp32", "--every", "0", "--probe-every", "0", "--log-every", "1", "--no-lint"),
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Encoded once for all."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def words(tmp_path: Path, cache: str) -> list[str]:
    """A short run."""
    return ["train", *TINY_WORLD, "--output", str(tmp_path / "sketch"), "--cache", cache]


def test_a_run_writes_files_for_every_program(tmp_path: Path, words: list[str]) -> None:
    assert main([*words, "--steps", "2", "--diffusers"]) == 0
    file = checkpoint.read(tmp_path / "sketch" / "sketch.safetensors")
    story = ControlNetMetadata.from_strings(file.metadata)
    assert (story.preprocessor, story.resolution, story.steps, story.samples) == ("PreprocessCanny", 128, 2, 4)
    ControlNetModel.from_pretrained(tmp_path / "sketch" / "sketch")
    assert main([*words, "--steps", "3", "--save-every", "1"]) == 0
    assert [path.name for path in Checkpoints(tmp_path / "sketch", 2).all()] == ["step-0000002", "step-0000003"]


def test_a_finished_run_recommends_another_strength(tmp_path: Path, words: list[str]) -> None:
    """Its file is written again, and nothing is trained."""
    assert main([*words, "--steps", "1"]) == 0
    before = checkpoint.read(tmp_path / "sketch" / "sketch.safetensors")
    assert main([*words, "--steps", "1", "--strength", "0.8", "--start-percent", "0.1", "--end-percent", "0.9"]) == 0
    file = checkpoint.read(tmp_path / "sketch" / "sketch.safetensors")
    story = ControlNetMetadata.from_strings(file.metadata)
    assert (story.strength, story.start_percent, story.end_percent, story.steps) == (0.8, 0.1, 0.9, 1)
    assert all(before.tensors[name].equal(tensor) for name, tensor in file.tensors.items())


def test_a_dry_run_prints_a_recipe_and_writes_nothing(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--dry-run"]) == 0
    recipe, _, plan = capsys.readouterr().out.partition("\n\nSD-shaped")
    assert parse(recipe, "it")["run"]["batch"] == 2 and "TFLOP" in plan
    assert not (tmp_path / "sketch").exists()


def test_what_was_fitted_stays_when_there_is_more_memory(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = [*words, "--fit", "true", "--micro-batch", "2", "--optimizer.name", "sgd", "--ema", "0"]
    assert main([*fitted, "--steps", "1", "--memory-gb", "0.5"]) == 0
    assert "GiB are needed by estimate, and there are 0.5: this does not fit, whatever is" in capsys.readouterr().err
    assert main([*fitted, "--steps", "2", "--memory-gb", "100"]) == 0
    said = capsys.readouterr()
    assert "does not fit" not in said.err and len(Checkpoints(tmp_path / "sketch", 2).all()) == 2
    newest = Checkpoints(tmp_path / "sketch", 2).newest()
    assert newest is not None and newest.facts["config"]["optimizer"]["in_backward"]


def test_a_checkpoint_is_hashed_once_when_a_run_goes_on(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at all by a dry run."""
    fitted = [*words, "--fit", "true", "--micro-batch", "2", "--memory-gb", "100"]
    assert main([*fitted, "--steps", "1"]) == 0
    hashed: list[str] = []
    sha256 = checkpoints.sha256

    def counting(path: Path) -> str:
        hashed.extend([path.name] if path.parent.name == "step-0000001" else [])
        return sha256(path)

    monkeypatch.setattr(checkpoints, "sha256", counting)
    assert main([*fitted, "--steps", "2", "--dry-run"]) == 0
    assert hashed == []
    assert main([*fitted, "--steps", "2"]) == 0
    assert sorted(hashed) == ["average.safetensors", "optimizer.pt", "state.json", "weights.safetensors"]


def test_a_damaged_checkpoint_is_passed_over_and_two_are_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with files of the right size."""
    assert main([*words, "--steps", "2", "--save-every", "1"]) == 0

    def damage(step: int) -> None:
        path = tmp_path / "sketch" / "checkpoints" / f"step-{step:07d}" / "weights.safetensors"
        path.write_bytes(bytes(path.stat().st_size))

    damage(2)
    assert main([*words, "--steps", "3"]) == 0
    assert "Going on after step 1" in capsys.readouterr().out
    damage(1)
    damage(3)
    assert main([*words, "--steps", "4"]) == 2
    assert "is whole (step-0000001, step-0000003)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lerning-rate", "1"], "Did you mean learning_rate?"),
        (["--steps", "many"], "run.steps must be a whole number, got 'many'"),
        (["--base.path", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--data.format", "pairs", "--data.path", "nowhere"], "nowhere"),
        (["--hints", "cany"], "canny"),
        (["--precision", "fp16"], "needs a CUDA device"),
        (["--target.init", "nowhere.safetensors"], "nowhere.safetensors cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    tmp_path: Path, words: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "sketch").exists()


def test_a_full_cache_is_said_in_a_line(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", "16k") as disk:
        assert main([*words, "--cache", str(disk)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("controlnet-kit train: The cache") and "data.cache" in said
    assert not (tmp_path / "sketch").exists()


def test_a_folder_of_someone_else_is_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sketch").mkdir()
    (tmp_path / "sketch" / "poem.txt").write_text("o")
    assert main(words) == 2
    assert "no run of this trainer" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "sketch").iterdir()] == ["poem.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path: Path, words: list[str], number: int) -> None:
    if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("this process, and what it starts, ignores that signal")
    tests = Path(__file__).resolve().parents[1]
    paths = [str(tests), str(tests.parent / "scripts")]
    program = (
        f"import sys; sys.path[:0] = {paths!r}; import conftest; from controlnet_kit.training.commands import main"
    )
    command = [sys.executable, "-c", f"{program}; sys.exit(main(sys.argv[1:]))", *words, "--steps", "100000"]
    history = tmp_path / "sketch" / "history.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while not (history.exists() and "StepDone" in history.read_text()):
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(number)
    assert run.returncode == 130
    found = Checkpoints(tmp_path / "sketch", 2).newest()
    assert found is not None and found.step >= 1
    assert (tmp_path / "sketch" / "sketch.safetensors").is_file()
    assert main([*words, "--steps", str(found.step + 1)]) == 0
    lines = history.read_text().splitlines()
    steps = [line["number"] for line in map(json.loads, lines) if line["event"] == "StepDone"]
    assert steps == list(range(1, found.step + 2))
