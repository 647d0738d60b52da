"""What terminal, trackers and report make of a run."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from controlnet_kit.training.config import RunConfig
from controlnet_kit.training.console import Console, words
from controlnet_kit.training.errors import ConfigError
from controlnet_kit.training.events import (
    Alarm,
    Converged,
    Event,
    Finished,
    MicroBatchHalved,
    Probed,
    Resumed,
    Saved,
    StepDone,
    Validated,
)
from controlnet_kit.training.observers import observed
from controlnet_kit.training.output.history import History
from controlnet_kit.training.output.output import claim
from controlnet_kit.training.report.charts import Chart, Series, number, svg, thinned, ticks
from controlnet_kit.training.report.report import Report
from controlnet_kit.training.trackers import WANDB_ID, Trackers, figures, of_wandb, wanted
from rich.console import Console as Terminal
from training_runs import configured

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)


def validated(number: int, score: float) -> Validated:
    return Validated(
        number=number,
        scores={"edge_f1": score, "floor": 0.2, "ceiling": 0.9},
        images=PICTURES,
        hints=PICTURES,
        captions=("a <b> & c", ""),
        without=PICTURES,
        real=PICTURES,
        measure="edge_f1",
    )


def events(output: Path) -> list[Event]:
    """A run of 40 steps."""
    found: list[Event] = []
    for step in range(1, 41):
        loss = 0.1 / step if step % 2 == 0 else None
        found.append(
            StepDone(number=step, loss=loss, learning_rate=1e-4, seconds=0.5, gradient_norm=0.1 if loss else None)
        )
        if step % 10 == 0:
            found.append(
                Probed(number=step, values={"right": 0.1, "no_control": 0.01, "other_hint": 0.03, "error": 0.001})
            )
            found.append(validated(step, step / 50))
    return [
        *found,
        Alarm(number=40, kind="no gap", message="Hints <are> not read yet."),
        Converged(number=40, since=20, message="Converged at step 20: it follows."),
        Finished(number=40, stopped=False, path=output / "run.safetensors", seconds=60.0),
    ]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The folder of a run that has begun."""
    folder = tmp_path / "run"
    folder.mkdir()
    claim(folder, {"config": configured(folder, data={"hints": "canny"}).to_dict()})
    return folder


class Tags(HTMLParser):
    """Counts tags and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.append(tag)
        if tag not in ("meta", "img", "line", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.append(tag)


def test_the_report_is_one_file_with_curves_and_pictures(output: Path) -> None:
    history, report = History(output), Report(output)
    for event in events(output):
        history.add(event)
        report(event)
    page = (output / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.seen.count("svg") == 6
    assert tags.seen.count("img") == 2 * 4 + 2 * (4 + 3), "the latest in full, and a strip with start, hint and real"
    assert "a &lt;b&gt; &amp; c" in page and "Hints &lt;are&gt; not read yet." in page and "no prompt" in page
    assert "Converged at step 20" in page and "&quot;canny&quot;" in page
    assert not re.search(r"(src|href)=.(?!data:)", page) and "http" not in page, "it needs nothing else"


def test_a_report_of_a_run_that_saw_nothing(output: Path) -> None:
    page = Report(output).write().read_text(encoding="utf-8")
    assert "not been seen" in page and "<svg" not in page


def test_ticks_and_numbers() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0]) and ticks(3, 3) == [3]
    assert ticks(-0.012, 0.03) == pytest.approx([-0.01, 0, 0.01, 0.02, 0.03])
    assert [number(value) for value in (0, 12_000, 0.25, 3e-5, 640)] == ["0", "12k", "0.25", "3e-05", "640"]


def test_curves_stay_inside_and_long_ones_are_thinned() -> None:
    points = [(float(x), float("nan") if x == 5 else 1e-6 * x) for x in range(10_000)]
    assert len(thinned(points)) <= 1500
    drawn = svg(Chart(title="loss", note="", series=[Series(name="loss", points=points, colour="a")]))
    pairs = re.findall(r"([\d.-]+),([\d.-]+)", re.findall(r'polyline[^>]*points="([^"]+)"', drawn)[0])
    assert all(0 <= float(x) <= 560 and 0 <= float(y) <= 240 for x, y in pairs) and "nan" not in drawn


@pytest.mark.parametrize("terminal", [True, False])
def test_the_terminal_shows_figures_and_what_happens(output: Path, terminal: bool) -> None:
    file = io.StringIO()
    shown = Terminal(file=file, force_terminal=terminal, width=140)
    with Console(RunConfig(steps=40, batch=4), shown) as console:
        for event in events(output):
            console(event)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    for said in ("Step 40: edge_f1 0.800 (without control 0.200", "pairs/s", "no gap: Hints <are>", "it follows."):
        assert said in text
    assert "Finished after 40 steps and 1.0 minutes" in text and ("40/40" in text) == terminal


def test_every_event_has_its_words() -> None:
    path = Path("x")
    assert words(StepDone(number=1, loss=None, learning_rate=0, seconds=1, gradient_norm=None)) is None
    for event in (
        Resumed(number=1, path=path),
        MicroBatchHalved(number=1, micro_batch=2),
        Saved(number=1, path=path),
        Finished(number=1, stopped=True, path=path, seconds=1),
    ):
        assert words(event)


def test_trackers_are_checked_by_name() -> None:
    assert wanted(configured(Path("x"))) == []
    assert wanted(configured(Path("x"), run={"trackers": "TensorBoard"})) == ["tensorboard"]
    with pytest.raises(ConfigError, match="Did you mean tensorboard"):
        wanted(configured(Path("x"), run={"trackers": "tensorbord"}))
    with pytest.raises(ConfigError, match="not installed"):
        wanted(configured(Path("x"), run={"trackers": "swanlab"}))


def test_a_run_of_wandb_goes_on_after_an_interruption(output: Path) -> None:
    begun = of_wandb(output)
    assert (begun["name"], begun["resume"], of_wandb(output)) == (output.name, "allow", begun)
    (output / WANDB_ID).write_text("../../elsewhere")
    assert re.fullmatch("[0-9a-f]{8}", of_wandb(output)["id"])


def test_tensorboard_gets_figures_and_pictures(output: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = configured(output, run={"trackers": "tensorboard"})
    accelerator = Accelerator(cpu=True, log_with=wanted(config), project_dir=str(output))
    trackers = Trackers(accelerator, config)
    for event in events(output):
        trackers(event)
    trackers.close()
    assert figures(events(output)[0]) == {}
    found = EventAccumulator(str(next(output.rglob("events.out*")).parent)).Reload()
    assert len(found.Scalars("train/loss")) == 20 and len(found.Scalars("gap/other_hint")) == 4
    assert found.Scalars("fidelity/edge_f1")[-1].step == 40
    assert len(found.Images("validation")) == 4


def test_all_are_told_and_a_run_that_fails_still_gets_its_report(output: Path) -> None:
    config, happened = configured(output), events(output)[:6]
    with pytest.raises(RuntimeError, match="lost"), observed(config, Accelerator(cpu=True)) as tell:
        for event in happened:
            History(output).add(event)
            tell(event)
        raise RuntimeError("lost")
    assert "Training loss" in (output / "report.html").read_text(encoding="utf-8")
    assert json.loads((output / "history.jsonl").read_text().splitlines()[0])["event"] == "StepDone"
