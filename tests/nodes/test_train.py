"""`TrainControlNet` in process, on the embedded base: a few steps of the trainer's own loop."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from controlnet_kit.cn_core.errors import ControlNetKitError, FamilyMismatchError
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.cn_core.files.metadata import ControlNetMetadata
from controlnet_kit.nodes.save import SaveControlNet
from controlnet_kit.nodes.tiny import LoadTinyBase
from controlnet_kit.nodes.train import TrainControlNet
from controlnet_kit.nodes.train_base import HostCodec
from controlnet_kit.nodes.train_live import Live
from controlnet_kit.nodes.train_pairs import LoadTrainingPairs
from controlnet_kit.nodes.train_run import fixed
from controlnet_kit.nodes.train_settings import check_name
from controlnet_kit.training.config import TrainConfig
from controlnet_kit.training.errors import ConfigError, DataError
from picture_files import edges, picture, save
from random_models import SHAPES, host_model, our_apply, prompts, run, sample
from torch import Tensor

COUNT = 8
WIDGETS = {
    "preprocessor": "canny", "captions": "a thing", "steps": 4, "learning_rate": 1e-3, "batch": 2, "resolution": 64,
    "seed": 3, "prompt_dropping": 0.5, "target": "controlnet", "save_name": "mine", "preview_every": 0,
    "validate_every": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch) -> Path:
    """The host's output folder."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path / "output"


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return dict(zip(("model", "clip", "vae"), run(LoadTinyBase), strict=True))


@pytest.fixture(scope="module")
def images() -> Tensor:
    """IMAGE."""
    return torch.from_numpy(np.stack([picture(seed) for seed in range(COUNT)])).float() / 255


@pytest.fixture(scope="module")
def hints() -> Tensor:
    """Their edges, IMAGE."""
    maps = np.stack([edges(picture(seed)) for seed in range(COUNT)])
    return torch.from_numpy(maps).float()[..., None].expand(-1, -1, -1, 3) / 255


def train(base, **inputs: Any) -> tuple[Any, str, Tensor]:
    """As the host calls it: in inference mode, with lists."""
    with torch.inference_mode():
        return run(TrainControlNet, **{name: [value] for name, value in {**base, **WIDGETS, **inputs}.items()})


def weights(control: Any) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in control.source.patcher.model_state_dict().items()}


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_the_result_is_a_control_that_changes_what_is_drawn(base, images, output):
    control, report, plot = train(base, images=images, steps=6)
    positive, negative = prompts(SHAPES["tiny"])
    with torch.inference_mode():
        applied = our_apply(positive, negative, control, images[:1])
        assert not torch.equal(sample(base["model"], *applied), sample(base["model"], positive, negative))
    assert plot.ndim == 4 and plot.shape[-1] == 3 and 0 <= plot.min() < plot.max() <= 1
    file = Path(report.splitlines()[-1])
    assert file.is_relative_to(output / "controlnet" / "training") and same(
        checkpoint.read(file).tensors, weights(control)
    )
    assert "6 steps of 2" in report and "7 to train on, 1 held out" in report


def test_what_only_the_terminal_needs_may_be_missing(base, images, monkeypatch):
    """rich, which neither ComfyUI nor this pack's requirements bring."""
    for name in ("nodes.train_run", "training.observers", "training.console"):
        monkeypatch.delitem(sys.modules, f"controlnet_kit.{name}", raising=False)
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "1 steps" in train(base, images=images, steps=1)[1]


def test_its_file_tells_all_of_it(base, images, output):
    control, *_ = train(base, images=images)
    path = run(SaveControlNet, control_net=control, filename_prefix="kept", layout="LDM", dtype="keep")[0]
    story = ControlNetMetadata.from_strings(checkpoint.read(output / path).metadata)
    assert (story.preprocessor, story.condition, story.steps, story.samples) == ("PreprocessCanny", "canny", 4, 8)
    assert story.resolution == 64 and story.base_sha256 is not None


def test_the_base_is_as_before(base, images):
    before = {key: tensor.clone() for key, tensor in base["model"].model_state_dict().items()}
    train(base, images=images)
    assert same(before, base["model"].model_state_dict())


def test_the_same_inputs_find_the_finished_run_and_more_steps_go_on(base, images, output):
    first, report, _ = train(base, images=images)
    folder = Path(report.splitlines()[-1]).parent
    begun = (folder / "history.jsonl").read_text().count("StepDone")
    again, *_ = train(base, images=images)
    assert same(weights(first), weights(again))
    assert (folder / "history.jsonl").read_text().count("StepDone") == begun
    longer, *_ = train(base, images=images, steps=6)
    whole, *_ = train(base, images=images, steps=6, save_name="other")
    assert same(weights(longer), weights(whole)) and not same(weights(longer), weights(first))
    assert len(list((output / "controlnet" / "training").glob("mine-*"))) == 1


def test_a_setting_that_a_later_version_adds_renames_no_run():
    """Its default changes nothing of a run; another value does, unless the run may go on with it."""
    old = TrainConfig.from_tables({"optimizer": {"learning_rate": 1e-3}}).to_dict()
    lacking = {**old, "optimizer": {key: value for key, value in old["optimizer"].items() if key != "in_backward"}}
    assert fixed(old) == fixed(lacking) == {"optimizer.learning_rate": 1e-3}
    assert fixed({**old, "optimizer": {**old["optimizer"], "ema": 0.9}}) != fixed(old)
    recommended = {"strength": 0.8, "start_percent": 0.1, "end_percent": 0.9}
    assert fixed({**old, "run": {**old["run"], **recommended}}) == fixed(old)


def test_a_finished_run_recommends_another_strength(base, images):
    first, report, _ = train(base, images=images)
    second, again, _ = train(base, images=images, settings="run.strength = 0.8\nrun.end_percent = 0.7")
    assert again.splitlines()[-1] == report.splitlines()[-1] and same(weights(first), weights(second))
    story = ControlNetMetadata.from_strings(checkpoint.read(Path(again.splitlines()[-1])).metadata)
    assert (story.strength, story.end_percent, story.steps) == (0.8, 0.7, 4)


def test_other_inputs_are_another_run_and_so_is_starting_over(base, images):
    reports = [
        train(base, images=images, steps=1)[1],
        train(base, images=images, steps=1, seed=4)[1],
        train(base, images=images[1:], steps=1)[1],
        train(base, images=images, steps=1, resume="start over")[1],
    ]
    folders = {Path(report.splitlines()[-1]).parent for report in reports}
    assert len(folders) == len(reports)


def interrupting(monkeypatch, at: int) -> None:
    """The user cancels when this step is shown."""
    tell = Live.tell

    def told(self: Live, event: Any) -> None:
        tell(self, event)
        if event.number == at:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(Live, "tell", told)


def test_a_cancelled_run_goes_on_as_if_nothing_had_been(base, images, monkeypatch, output):
    with monkeypatch.context() as patched:
        interrupting(patched, 2)
        with pytest.raises(InterruptProcessingException):
            train(base, images=images, steps=6)
    (checkpoints,) = output.rglob("checkpoints")
    assert [path.name for path in checkpoints.iterdir()] == ["step-0000003"]
    resumed, report, _ = train(base, images=images, steps=6)
    whole, *_ = train(base, images=images, steps=6, save_name="whole")
    assert same(weights(resumed), weights(whole))
    assert "6 steps" in report and not comfy.model_management.processing_interrupted()


def runs(output: Path) -> list[str]:
    """The folders of runs, without the hash in their names."""
    return sorted(re.sub("^mine-[0-9a-f]{8}", "mine", path.name) for path in output.glob("controlnet/training/mine-*"))


def test_a_cancelled_run_that_started_over_goes_on(base, images, monkeypatch, output):
    """With the same prompt again, and with `continue`, which takes the newest one; finished ones are left alone."""

    def cancelled(at: int, resume: str) -> None:
        with monkeypatch.context() as patched:
            interrupting(patched, at)
            with pytest.raises(InterruptProcessingException):
                train(base, images=images, steps=6, resume=resume)

    def reached(name: str) -> int:
        folder = next(path for path in output.glob("controlnet/training/mine-*") if path.name.endswith(name))
        return max(int(path.name[-7:]) for path in folder.glob("checkpoints/*"))

    cancelled(2, "continue")
    cancelled(1, "start over")
    assert runs(output) == ["mine", "mine-2"] and reached("-2") == 2
    cancelled(3, "start over")
    assert runs(output) == ["mine", "mine-2"] and reached("-2") == 4
    resumed, report, _ = train(base, images=images, steps=6)
    assert runs(output) == ["mine", "mine-2"] and Path(report.splitlines()[-1]).stem.endswith("-2")
    whole, report, _ = train(base, images=images, steps=6, resume="start over")
    assert runs(output) == ["mine", "mine-2", "mine-3"] and Path(report.splitlines()[-1]).stem.endswith("-3")
    assert same(weights(resumed), weights(whole))


def test_a_run_that_is_cancelled_while_pictures_are_decoded(base, images, monkeypatch, output):
    """The host's layers raise in the middle of its VAE."""

    def interrupted(*_: Any) -> Tensor:
        raise InterruptProcessingException

    watched = {"preview_every": 2, "settings": "validation.steps = 2"}
    with monkeypatch.context() as patched:
        patched.setattr(HostCodec, "decode", interrupted)
        with pytest.raises(InterruptProcessingException):
            train(base, images=images, **watched)
    (checkpoints,) = output.rglob("checkpoints")
    assert [path.name for path in checkpoints.iterdir()] == ["step-0000002"]
    resumed, *_ = train(base, images=images, **watched)
    whole, *_ = train(base, images=images, save_name="whole", **watched)
    assert same(weights(resumed), weights(whole))


def test_given_hints_captions_and_pictures_of_several_sizes(base, images, hints):
    parts = [images[:4], images[4:, :96, :]]
    maps = [hints[:4], hints[4:, :96, :]]
    with torch.inference_mode():
        values = {
            **base,
            **WIDGETS,
            "preprocessor": "none",
            "settings": "data.buckets = true\ndata.condition = 'canny'",
        }
        lists = {name: [value] for name, value in values.items()}
        lists |= {"images": parts, "hints": maps, "captions": [f"thing {row}" for row in range(COUNT)]}
        control, report, _ = run(TrainControlNet, **lists)
    assert control.source.metadata["controlnet_kit.condition"] == "canny" and "4 steps" in report


@pytest.mark.parametrize(("target", "kind"), [("control_lora", "Control-LoRA"), ("lllite", "ControlNet-LLLite")])
def test_other_targets(base, images, target, kind):
    control, report, _ = train(base, images=images, target=target, settings="target.rank = 4", steps=2)
    assert kind in control.source.kind and target in report


def test_previews_and_measurements(base, images, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(Live, "say", lambda _, text: said.append(text))
    shown: list[Any] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *values, **_: shown.append(values))
    settings = "validation.steps = 2\nrun.log_every = 1"
    with pytest.raises(ConfigError, match=r"run\.log_every is set by the node itself"):
        train(base, images=images, settings=settings)
    control, report, plot = train(
        base, images=images, preview_every=2, validate_every=4, settings=settings.splitlines()[0]
    )
    assert "edge_f1" in control.source.metadata["controlnet_kit.fidelity"]
    assert "edge_f1" in report and "without control" in report and plot.shape[1] > 2 * 256
    assert any(value[2] is not None and value[2][0] == "JPEG" for value in shown)
    assert shown[-1][:2] == (4, 4)
    assert "latents: 8 of 8" in said and "step 4 of 4, loss" in said[-1] and "loss gap" in said[-1]


def test_too_few_pictures_to_hold_some_out(base, images):
    """What was measured on pictures of the training is said to be, and not written into the file."""
    control, report, _ = train(base, images=images[:4], validate_every=4, settings="validation.steps = 2")
    assert "edge_f1" in report and "on pairs of the training" in report
    assert "controlnet_kit.fidelity" not in control.source.metadata


def test_a_page_with_pictures_and_figures_for_trackers_are_kept(base, images):
    settings = 'validation.steps = 2\nrun.trackers = "tensorboard"'
    report = train(base, images=images, validate_every=4, settings=settings)[1]
    page = Path(report.splitlines()[-2])
    assert page.name == "report.html" and "edge f1" in page.read_text() and list(page.parent.glob("validation/*"))
    assert list(page.parent.rglob("events.out.tfevents*"))


def test_a_new_run_looks_at_the_pairs_first(base, images, hints, output):
    given = {"images": images, "hints": torch.zeros_like(hints), "preprocessor": "none"}
    with pytest.raises(DataError, match=r"8 of 8 pairs .*the hint is of one colour.*with `check_pairs` off"):
        train(base, **given)
    assert not list(output.rglob("mine*"))
    assert "4 steps" in train(base, **given, check_pairs=False)[1]
    inverted = {"images": images, "hints": 1 - hints, "preprocessor": "none"}
    with pytest.raises(
        DataError, match=r"has faults that a ControlNet would learn: inverted.*set `check_pairs` to false"
    ):
        train(base, **inverted)


def dataset(folder: Path, captions: bool = True) -> None:
    for seed in range(COUNT):
        save(folder / "images" / f"{seed}.png", picture(seed))
        save(folder / "hints" / f"{seed}.png", edges(picture(seed)))
        if captions:
            (folder / "images" / f"{seed}.txt").write_text(f"thing {seed}")


def test_a_folder(base, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    dataset(tmp_path / "input" / "sets" / "mine")
    options: Any = LoadTrainingPairs.GET_SCHEMA().inputs[0]
    assert "sets/mine" in options.options
    inputs = {"folder": "sets/mine", "layout": "auto", "captions": "given"}
    before = LoadTrainingPairs.fingerprint_inputs(**inputs)
    pairs, text = run(LoadTrainingPairs, **inputs)
    assert text == "8 pictures with hints"
    _, report, _ = train(base, pairs=pairs, preprocessor="none")
    assert str(tmp_path / "input" / "sets" / "mine") in report
    control, *_ = train(base, pairs=pairs, preprocessor="canny")
    assert control.source.metadata["controlnet_kit.preprocessor"] == "PreprocessCanny"
    (tmp_path / "input" / "sets" / "mine" / "images" / "0.txt").write_text("another thing")
    assert LoadTrainingPairs.fingerprint_inputs(**inputs) != before


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ({"preprocessor": "none"}, ControlNetKitError, "made by a `preprocessor`, and there is neither"),
        ({"hints": 8}, ControlNetKitError, "and there are both"),
        ({"hints": 7, "preprocessor": "none"}, ControlNetKitError, "8 images and 7 hints"),
        ({"captions": " \n "}, ControlNetKitError, "no captions"),
        ({"captions": "a\nb"}, ControlNetKitError, "8 images and 2 captions"),
        ({"images": None}, ControlNetKitError, "neither is connected"),
        ({"save_name": "../mine"}, ControlNetKitError, "save_name is"),
        ({"settings": "optimizer.nam = 'sgd'"}, ConfigError, "name"),
        ({"settings": "run.steps = 3"}, ConfigError, "set by the node itself"),
        ({"settings": "base.path = 'x'"}, ConfigError, "base.path is not for this node: the base is what is connected"),
        ({"settings": "run.output = 'x'"}, ConfigError, "the node has its own folders"),
        ({"settings": "hardware.threads = 2"}, ConfigError, "not for this node"),
        ({"settings": "data.count = 2"}, ConfigError, "choose from `pairs`"),
        ({"settings": "target.unlock_decoder_at = 1"}, ConfigError, "a CONTROL_NET brings no decoder"),
        ({"resolution": 72}, DataError, "multiples of 16"),
    ],
)  # fmt: skip
def test_bad_inputs_are_refused_before_anything_is_trained(base, images, hints, output, inputs, error, words):
    given = {name: hints[:value] if name == "hints" else value for name, value in {"images": images, **inputs}.items()}
    with pytest.raises(error, match=words):
        train(base, **{name: value for name, value in given.items() if value is not None})
    assert not list(output.rglob("mine*"))


def test_pictures_with_nan(base, images, output):
    broken = images.clone()
    broken[2, 5, 5] = float("nan")
    with pytest.raises(ControlNetKitError, match="NaN or infinite values in picture 2"):
        train(base, images=broken)
    assert not output.exists()


def test_parts_of_other_families(base, images):
    other = {**base, "model": host_model(SHAPES["SD 1.x"])}
    with pytest.raises(FamilyMismatchError, match="The CLIP makes texts of width 64"):
        train(other, images=images)
    vae = base["vae"]
    changed = type("Other", (), {"latent_channels": 16, "downscale_ratio": 8, "patcher": vae.patcher})()
    with pytest.raises(FamilyMismatchError, match="The VAE makes latents of 16 channels"):
        train({**base, "vae": changed}, images=images)


def test_a_model_on_another_noise_schedule(base, images):
    import comfy_extras.nodes_model_advanced as advanced

    patched = advanced.ModelSamplingDiscrete().patch(base["model"], "eps", True)[0]
    with pytest.raises(FamilyMismatchError, match="without a ModelSampling node"):
        train({**base, "model": patched}, images=images)


def test_names_of_folders():
    check_name("my net_2-b")
    for name in ("", " ", "..", "a/b", "a\\b", "a\nb", "x" * 49):
        with pytest.raises(ControlNetKitError, match="save_name"):
            check_name(name)
