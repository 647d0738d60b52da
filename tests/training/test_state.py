"""Nothing is lost: resuming is going on, whatever ended the run before."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.diffusion import NoiseSchedule
from controlnet_kit.cn_core.files import checkpoint
from controlnet_kit.training.bases import tiny
from controlnet_kit.training.errors import ConfigError, OutputError
from controlnet_kit.training.events import Alarm, Event, Finished, Resumed, Saved, StepDone
from controlnet_kit.training.loop import Trainer
from controlnet_kit.training.output import output
from controlnet_kit.training.output.checkpoints import Checkpoints
from controlnet_kit.training.output.history import History
from controlnet_kit.training.output.keeper import checkpoint_bytes, find
from small_disk import small_disk
from training_runs import RandomSamples, configured, finished, of_kind, same, trainer

TABLES = {"optimizer": {"ema": 0.9, "schedule": "cosine"}, "objective": {"timesteps": "learned"}}
LAUNCHER = """
import os, sys
sys.path[:0] = {paths!r}
import conftest
from pathlib import Path
from small_disk import small_disk
from training_runs import RandomSamples, configured, finished, trainer
print("ready", flush=True)
for line in sys.stdin:
    if child := os.fork():
        os.waitpid(child, 0)
        print("ended", flush=True)
        continue
    print(os.getpid(), flush=True)
    run = trainer(configured(Path(sys.argv[1]), run={{"steps": 12, "save_every": 2}}, **{tables!r}))
    for event in run.run():
        print(event.number, flush=True)
    os._exit(0)
"""
"""Starts a run in a process of its own for every line it is sent; what it imports is imported once."""


@contextmanager
def launcher(folder: Path) -> Generator[tuple[Callable[[], str], Callable[[], str]]]:
    """Starts runs into `folder` and reads their lines: the first is the process's number, "ended" the last."""
    tests = Path(__file__).resolve().parents[1]
    paths = [str(tests), str(tests / "lib"), str(tests.parent / "scripts")]
    command = [sys.executable, "-c", LAUNCHER.format(paths=paths, tables=TABLES), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        requests, answers = process.stdin, process.stdout
        assert answers.readline() == "ready\n"

        def start() -> str:
            requests.write("\n")
            requests.flush()
            return answers.readline()

        yield start, answers.readline
        requests.close()


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    whole = trainer(configured(tmp_path / "whole", **TABLES))
    finished(whole)
    first = trainer(configured(tmp_path / "parts", **TABLES))
    events = []
    for event in first.run():
        events.append(event)
        if event.number == 3:
            first.stop()
    assert of_kind(events, Finished)[0].stopped
    second = trainer(configured(tmp_path / "parts", **TABLES))
    events = finished(second)
    assert events[0] == Resumed(number=3, path=tmp_path / "parts" / "checkpoints" / "step-0000003")
    assert same(whole.weights(), second.weights()) and same(whole.keeper.state_dict(), second.keeper.state_dict())
    assert whole.timesteps.squares.tolist() == second.timesteps.squares.tolist()
    for suffix in ("whole", "parts"):
        losses = [e["number"] for e in History(tmp_path / suffix).read() if e["event"] == "StepDone"]
        assert losses == [1, 2, 3, 4, 5, 6]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Four kills, most of them while a step is computed or a checkpoint written."""
    whole = trainer(configured(tmp_path / "whole", run={"steps": 12, "save_every": 2}, **TABLES))
    finished(whole)
    source, folder = random.Random(1), tmp_path / "killed"
    with launcher(folder) as (start, line):
        for _ in range(4):
            run = int(start())
            for _ in range(source.randint(1, 4)):
                line()
            time.sleep(source.uniform(0, 0.3))
            os.kill(run, signal.SIGKILL)
            while line() != "ended\n":
                pass
        start()
        while line() != "ended\n":
            pass
    files = [checkpoint.read(tmp_path / name / f"{name}.safetensors") for name in ("whole", "killed")]
    assert same(files[0].tensors, files[1].tensors)


class Diary:
    """A watcher that notes each step and tells of it; it may fail in one."""

    name = "diary"

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails
        self.steps: list[int] = []

    def watch(self, _run: Trainer, step: StepDone, /) -> Iterable[Event]:
        """See `Watcher`."""
        self.steps.append(step.number)
        yield Alarm(number=step.number, kind=f"{len(self.steps)} steps", message=str(self.steps))
        if step.number == self.fails:
            raise RuntimeError("no ink")
        yield Alarm(number=step.number, kind="done", message="")

    def state(self) -> Mapping[str, Any]:
        """See `Watcher`."""
        return {"steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Watcher`."""
        self.steps = list(state["steps"])


def by_watcher(folder: Path) -> None:
    """The run ends with the watcher's error."""
    with pytest.raises(RuntimeError, match="no ink"):
        finished(trainer(configured(folder, **TABLES), watchers=[Diary(fails=4)]))


def by_the_one_who_is_told(folder: Path) -> None:
    """An observer's."""

    def follow() -> None:
        for event in trainer(configured(folder, **TABLES), watchers=[Diary()]).run():
            if isinstance(event, Alarm) and event.number == 4:
                raise ConnectionError("no network")

    with pytest.raises(ConnectionError):
        follow()


def by_history(folder: Path) -> None:
    """Its file cannot be written any more, for a while."""
    run = trainer(configured(folder, **TABLES), watchers=[Diary()])
    path = run.history.path
    with pytest.raises(IsADirectoryError):
        for event in run.run():
            if isinstance(event, Alarm) and event.number == 4:
                run.history.path = folder
    run.history.path = path


@pytest.mark.parametrize("fail", [by_watcher, by_the_one_who_is_told, by_history])
def test_an_error_beside_the_training_loses_nothing(tmp_path: Path, fail: Callable[[Path], None]) -> None:
    """In step 4 of 6, with no checkpoint due: steps, the watcher's notes and the history are those of a whole run."""
    whole = trainer(configured(tmp_path / "whole", **TABLES), watchers=[Diary()])
    finished(whole)
    fail(tmp_path / "parts")
    second = trainer(configured(tmp_path / "parts", **TABLES), watchers=[diary := Diary()])
    events = finished(second)
    assert of_kind(events, Resumed)[0].number == 4 and diary.steps == [1, 2, 3, 4, 5, 6]
    assert same(whole.weights(), second.weights()) and same(whole.keeper.state_dict(), second.keeper.state_dict())
    told = [
        [(e["event"], e["number"], e.get("message"), e.get("loss")) for e in History(folder).read()]
        for folder in (whole.output, second.output)
    ]
    kept = ("StepDone", "Alarm")
    assert [e for e in told[0] if e[0] in kept] == [e for e in told[1] if e[0] in kept]


def damage_file(path: Path) -> None:
    """One byte of the weights."""
    content = bytearray((path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "weights.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [damage_file, lambda path: (path / "manifest.json").write_text("{"), lambda path: (path / "state.json").unlink()],
)
def test_a_damaged_checkpoint_is_passed_over_and_put_aside(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    finished(trainer(configured(tmp_path, run={"steps": 4, "save_every": 2})))
    damage(tmp_path / "checkpoints" / "step-0000004")
    events = finished(trainer(configured(tmp_path, run={"steps": 5, "save_every": 2})))
    assert of_kind(events, Resumed)[0].number == 2
    (alarm,) = of_kind(events, Alarm)
    assert (alarm.number, alarm.kind) == (2, "damaged checkpoint") and "step-0000004.damaged" in alarm.message
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-0000004", "step-0000004.damaged", "step-0000005"]


def test_nothing_is_begun_over_checkpoints_of_which_none_is_whole(tmp_path: Path) -> None:
    finished(trainer(configured(tmp_path, run={"steps": 4, "save_every": 2})))
    for path in (tmp_path / "checkpoints").iterdir():
        damage_file(path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"}
    with pytest.raises(OutputError, match=r"is whole \(step-0000002, step-0000004\).*move that folder away"):
        finished(trainer(configured(tmp_path, run={"steps": 5})))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != ".lock"} == before


def test_a_checkpoint_just_written_is_kept(tmp_path: Path) -> None:
    """Also among higher numbers, which another run left."""
    checkpoints = Checkpoints(tmp_path, 2)
    for step in (8, 9, 1):
        checkpoints.begin(step, 0)
        checkpoints.commit(step, {})
    assert [path.name[-1] for path in checkpoints.all()] == ["1", "8", "9"]


def test_fp16_after_another_precision(tmp_path: Path) -> None:
    """The checkpoint has no state of a scaler."""
    finished(trainer(configured(tmp_path, run={"steps": 1})))
    second = trainer(configured(tmp_path, run={"steps": 2}))
    second.scaler = torch.amp.GradScaler("cpu")  # as a run in fp16 has it, which needs a GPU
    events = second.run()
    assert next(events) == Resumed(number=1, path=tmp_path / "checkpoints" / "step-0000001")
    assert second.scaler.get_scale() == 2**16
    events.close()


def test_old_checkpoints_go_when_new_ones_are_there(tmp_path: Path) -> None:
    events = finished(trainer(configured(tmp_path, run={"save_every": 1, "keep": 3})))
    assert [event.number for event in of_kind(events, Saved)] == [1, 2, 3, 4, 5, 6]
    assert [path.name[-1] for path in Checkpoints(tmp_path, 3).all()] == ["4", "5", "6"]


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="no run of this trainer"):
        finished(trainer(configured(tmp_path)))
    (tmp_path / "run.json").write_text(json.dumps({"made_by": "someone"}))
    with pytest.raises(OutputError, match="nothing was written"):
        find(configured(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt", "run.json"]
    with pytest.raises(OutputError, match="is a file"):
        find(configured(tmp_path / "letter.txt"))


def test_what_a_killed_process_left_of_the_marker_is_no_one_elses(tmp_path: Path) -> None:
    (tmp_path / ".run.json.1234").write_text("{")
    assert find(configured(tmp_path)) is None
    assert of_kind(finished(trainer(configured(tmp_path, run={"steps": 1}))), Finished)


def test_a_marker_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").write_text("old")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "sync", full)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        output.claim(tmp_path, {})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("run.json", "old")]


def test_other_settings_are_named(tmp_path: Path) -> None:
    finished(trainer(configured(tmp_path, run={"steps": 2})))
    changed = configured(tmp_path, optimizer={"learning_rate": 2e-3, "ema": 0.9}, run={"steps": 2})
    with pytest.raises(ConfigError) as error:
        trainer(changed).keeper.open()
    assert "optimizer.learning_rate 0.002, was 0.001; optimizer.ema 0.9, was 0.0" in str(error.value)
    longer = configured(tmp_path, run={"steps": 3, "log_every": 2, "save_every": 7, "keep": 5}, validation={"count": 1})
    assert of_kind(finished(trainer(longer)), StepDone)[-1].number == 3
    with pytest.raises(OutputError, match=r"run\.resume"):
        find(configured(tmp_path, run={"resume": "never"}))


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    first = trainer(configured(tmp_path)).run()
    next(first)
    with pytest.raises(OutputError, match="Another process is training"):
        finished(trainer(configured(tmp_path)))
    assert of_kind(first, Finished)[0].number == 6


def test_other_data_is_refused(tmp_path: Path) -> None:
    finished(trainer(configured(tmp_path, run={"steps": 1})))
    with pytest.raises(ConfigError, match=r"data\.path holds something else"):
        finished(trainer(configured(tmp_path), RandomSamples(sha256="1" * 64)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction": "v"}, r"prediction 'v', was 'eps'\. Put its scheduler's settings back"),
        ({"schedule": NoiseSchedule(beta_end=0.02, kind="linear")}, "beta_end 0.02, was 0.012; kind 'linear', was"),
    ],
)
def test_the_same_unet_with_another_objective_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """As after an edit of a folder's scheduler, which neither the settings nor the UNet's hash tell."""
    finished(trainer(configured(tmp_path, run={"steps": 1})))
    other = replace(tiny.as_base(tiny.load()), **change)
    with pytest.raises(ConfigError, match=words):
        finished(trainer(configured(tmp_path), base=other))


def test_a_checkpoint_from_before_the_objective_was_noted_is_gone_on_from(tmp_path: Path) -> None:
    finished(trainer(configured(tmp_path, run={"steps": 1})))
    manifest = tmp_path / "checkpoints" / "step-0000001" / "manifest.json"
    content = json.loads(manifest.read_text())
    assert content["facts"].pop("process")["prediction"] == "eps"
    manifest.write_text(json.dumps(content))
    assert of_kind(finished(trainer(configured(tmp_path, run={"steps": 2}))), Resumed)[0].number == 1


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A real one of 130 MiB: with what is kept free, one checkpoint of 38 fits and two do not."""
    with small_disk(tmp_path / "disk", "130m") as disk:
        finished(trainer(configured(disk / "run", run={"steps": 1})))
        before = {path: path.stat().st_mtime_ns for path in (disk / "run" / "checkpoints").rglob("*")}
        with pytest.raises(OutputError, match="what was saved before is untouched"):
            finished(trainer(configured(disk / "run", run={"steps": 3, "save_every": 1})))
        assert {path: path.stat().st_mtime_ns for path in (disk / "run" / "checkpoints").rglob("*")} == before


def test_a_disk_too_small_for_all_checkpoints_is_said_before_the_first_step(tmp_path: Path) -> None:
    """Two of them, states of the optimiser included, do not fit."""
    with small_disk(tmp_path / "disk", "130m") as disk:
        with pytest.raises(OutputError, match=r"what it will save \(checkpoints: 2\)"):
            next(trainer(configured(disk / "run", run={"steps": 2, "save_every": 1})).run())
        assert not list(disk.iterdir())


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "adafactor", "sgd"])
def test_the_size_of_a_checkpoint_is_known_before_the_first_step(tmp_path: Path, name: str) -> None:
    run = trainer(configured(tmp_path, optimizer={"name": name, "ema": 0.9}, run={"steps": 1}))
    expected = checkpoint_bytes(run.target, run.config)
    with torch.compiler.set_stance("force_eager"):  # torchao compiles its optimisers' steps, for a minute
        finished(run)
    folder = tmp_path / "checkpoints" / "step-0000001"
    assert expected == pytest.approx(sum(path.stat().st_size for path in folder.iterdir()), rel=0.1)


def test_a_disk_that_fills_up_while_writing_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "80m") as disk:
        checkpoints = Checkpoints(disk, 2)
        with checkpoints.reporting(1):
            (checkpoints.begin(1, 0) / "a").write_bytes(b"1")
            checkpoints.commit(1, {})
        with pytest.raises(OutputError, match="Those before it are whole"), checkpoints.reporting(2):
            (checkpoints.begin(2, 0) / "a").write_bytes(bytes(90 * 2**20))
        found = checkpoints.newest()
        assert found is not None and found.step == 1 and not list(disk.rglob("*.tmp"))
        assert shutil.disk_usage(disk).free > 70 * 2**20
