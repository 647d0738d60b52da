"""Cached samples: computed once, the same as without a cache, and not to be broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import controlnet_kit
import numpy as np
import pytest
import torch
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data import store
from controlnet_kit.training.data.lending import lending
from controlnet_kit.training.data.memo import Memo
from controlnet_kit.training.data.pictures import file_picture
from controlnet_kit.training.encoded import EncodedSamples
from controlnet_kit.training.errors import DataError
from controlnet_kit.training.planned import plan_samples
from picture_files import Make, edges, picture, save
from PIL import Image
from small_disk import small_disk
from torch import nn

ROOT = Path(str(controlnet_kit.__file__)).parent


def config(folder: Path, **changes: object) -> DataConfig:
    """The folder at the tiny base's size, its cache beside it."""
    settings = DataConfig(path=str(folder), resolution=128, validation=0, cache=str(folder.parent / "cache"))
    return replace(settings, **changes)


class Counted:
    """How many items a progress said that it made, by store."""

    def __init__(self) -> None:
        self.made: dict[str, int] = {}
        self.before: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        assert done <= total
        if what in self.before:
            self.made[what] = self.made.get(what, 0) + done - self.before[what]
        self.before[what] = done


def opened(base: Base, settings: DataConfig) -> tuple[EncodedSamples, dict[str, int]]:
    """Samples, and what was made for them."""
    counted = Counted()
    samples = plan_samples(settings, base, progress=counted).encoded(progress=counted)
    counted.made.pop("pictures found", None)
    return samples, counted.made


def everything(samples: EncodedSamples) -> list[torch.Tensor]:
    """All rows' tensors."""
    rows = torch.arange(len(samples))
    noise = torch.zeros(len(samples), *samples.latent_shape(0))
    batch = samples.batch(rows, noise, torch.zeros(len(samples), dtype=torch.bool))
    return [batch.latents, batch.hint, batch.context]


def test_a_batch_is_what_the_base_computes(make_pairs: Make, tiny_base: Base) -> None:
    samples, _ = opened(tiny_base, config(make_pairs(5)))
    rows = torch.tensor([3, 0, 3])
    noise = torch.randn(3, 4, 16, 16)
    dropped = torch.tensor([False, False, True])
    batch = samples.batch(rows, noise, dropped)
    keys = [int(samples.rows[row].example.key) for row in rows.tolist()]
    images = torch.from_numpy(np.stack([picture(key) for key in keys])).movedim(-1, 1) / 255
    posterior = tiny_base.codec.encode(images)
    torch.testing.assert_close(batch.latents, posterior.mean + posterior.std * noise, atol=2e-3, rtol=1e-3)
    expected = np.stack([edges(picture(key)) for key in keys])[:, None].repeat(3, axis=1) / 255
    assert batch.hint.dtype == torch.uint8, "the device makes floats of it"
    assert torch.equal(batch.to(torch.device("cpu")).hint, torch.from_numpy(expected).float())
    captions = [samples.caption(3), samples.caption(0), ""]
    torch.testing.assert_close(batch.context, tiny_base.text.encode(captions).context, atol=2e-3, rtol=1e-3)
    assert batch.y is None and torch.equal(batch.rows, rows)


def test_the_second_time_computes_nothing(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(6)
    first, made = opened(tiny_base, config(folder))
    assert made == {"latents": 6, "hints": 6, "texts": 7}
    second, again = opened(tiny_base, config(folder))
    assert again == {} and first.sha256 == second.sha256


def test_other_settings_compute_only_what_depends_on_them(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(6)
    opened(tiny_base, config(folder))
    _, made = opened(tiny_base, config(folder, hints="canny", preprocessor_params={"low_threshold": 20}))
    assert made == {"hints": 6}
    _, made = opened(tiny_base, config(folder, captions="empty"))
    assert made == {"texts": 1}


def test_a_changed_picture_recomputes_its_chunk(
    make_pairs: Make, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK", 2)
    folder = make_pairs(12)
    before, _ = opened(tiny_base, config(folder))
    save(folder / "images" / "004.png", picture(77))
    after, made = opened(tiny_base, config(folder))
    assert 1 <= made["latents"] <= 4 and "hints" not in made and before.sha256 != after.sha256
    old, new = everything(before)[0], everything(after)[0]
    assert [row for row in range(12) if not torch.equal(old[row], new[row])] == [4]


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_file_is_made_again(make_pairs: Make, tiny_base: Base, damage: str) -> None:
    folder = make_pairs(4)
    samples, _ = opened(tiny_base, config(folder))
    good = everything(samples)
    (path,) = (folder.parent / "cache").glob("latents-*/*.safetensors")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-100])
    elif damage == "flipped":
        data[-200] ^= 0xFF
        path.write_bytes(data)
    else:
        path.unlink()
    again, made = opened(tiny_base, config(folder))
    assert made == {"latents": 4}
    assert all(torch.equal(a, b) for a, b in zip(good, everything(again), strict=True))


def test_notes_without_a_range_are_made_again(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(1)
    settings = config(folder)
    memo = plan_samples(settings, tiny_base).memo
    stamp = f"picture {file_picture(folder / 'images' / '000.png').stamp()}"
    noted = memo.read(stamp)
    assert noted is not None
    memo.write(stamp, json.dumps(json.loads(noted)[:3]))
    plan_samples(settings, tiny_base)
    assert memo.read(stamp) == noted


def test_mirrored_rows(make_pairs: Make, tiny_base: Base) -> None:
    samples, _ = opened(tiny_base, config(make_pairs(3), flip=True))
    assert len(samples) == 6
    hints = everything(samples)[1]
    assert torch.equal(hints[1::2], hints[0::2].flip(-1))
    assert [samples.key(row) for row in range(3)] == ["000", "000", "001"]


def test_variants_differ_in_cuts_and_drawn_settings(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(3)
    for path in (folder / "images").iterdir():
        save(path, np.asarray(Image.open(path).resize((400, 128))))
    drawn = {"hints": "canny", "randomise": {"high_threshold": (100, 250)}}
    samples, made = opened(tiny_base, config(folder, crop="random", variants=4, **drawn))
    assert len(samples) == 12 and made == {"latents": 12, "hints": 12, "texts": 4}
    assert [samples.key(row) for row in range(2)] == ["000", "000 variant 1"]
    latents, hints, _ = everything(samples)
    assert len({latent.numpy().tobytes() for latent in latents}) == 12
    assert len({hint.numpy().tobytes() for hint in hints}) == 12
    once, _ = opened(tiny_base, config(folder, crop="random", **drawn))
    assert torch.equal(everything(once)[0], latents[::4])


class Traveller(nn.Linear):
    """A network that notes where it is sent, and stays."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.sent: list[torch.device] = []

    def to(self, device: torch.device) -> Traveller:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.sent.append(device)
        return self

    def modules(self) -> tuple[nn.Module, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What `lend` asks for."""
        return (self,)


def test_networks_are_lent_to_the_device_and_given_back() -> None:
    here, there, network = torch.device("cpu"), torch.device("cuda", 0), Traveller()
    with lending(here) as lend:
        lend(network)
    assert network.sent == []
    with lending(there) as lend:
        assert network.sent == []
        lend(network)
        assert network.sent == [there]
    assert network.sent == [there, here]


def test_held_out_pairs_are_in_no_row(make_pairs: Make, tiny_base: Base) -> None:
    samples, _ = opened(tiny_base, config(make_pairs(10), flip=True, validation=3))
    keys = {row.example.found.pair.key for row in samples.rows}
    others = {row.example.found.pair.key for row in samples.held_out.rows}
    assert len(samples) == 14 and len(samples.held_out) == 3 and not keys & others
    with pytest.raises(DataError, match="nothing is left"):
        plan_samples(config(Path(samples.rows[0].example.found.pair.image.name).parents[1], validation=10), tiny_base)


def test_buckets_hold_rows_of_one_size(tmp_path: Path, tiny_base: Base) -> None:
    folder = tmp_path / "mixed"
    for number, size in enumerate([(128, 128), (96, 160), (160, 96), (200, 100)]):
        image = np.resize(picture(number), (*size, 3))
        save(folder / "images" / f"{number}.png", image)
        save(folder / "hints" / f"{number}.png", edges(image))
    samples, _ = opened(tiny_base, config(folder, buckets=True, captions="empty"))
    assert sorted(int(row) for rows in samples.sizes.values() for row in rows) == [0, 1, 2, 3]
    assert len(samples.sizes) >= 3
    for (height, width), rows in samples.sizes.items():
        batch = samples.batch(rows, torch.zeros(len(rows), 4, height, width), torch.zeros(len(rows), dtype=torch.bool))
        assert batch.latents.shape[2:] == (height, width) and batch.hint.shape[2:] == (8 * height, 8 * width)


def test_drawn_settings_differ_between_pictures_and_not_between_runs(make_pairs: Make, tiny_base: Base) -> None:
    settings = config(make_pairs(6), hints="canny", randomise={"low_threshold": (10, 90), "high_threshold": (100, 250)})
    first, _ = opened(tiny_base, settings)
    second, made = opened(tiny_base, settings)
    assert made == {} and torch.equal(everything(first)[1], everything(second)[1])
    drawn = {row.hint_name for row in first.rows}
    other = {row.hint_name for row in plan_samples(settings, tiny_base, seed=1).rows}
    assert len(drawn) == 6 and not drawn & other


BUILD = """
import sys, time
from pathlib import Path
from controlnet_kit.training.bases import tiny
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data import store
from controlnet_kit.training.planned import plan_samples
store.CHUNK = 2
made = []
def progress(what, done, total):
    made.append((what, done))
    print(what, done, flush=True)
    time.sleep(0.02)
config = DataConfig(path=sys.argv[1], resolution=128, validation=0, cache=sys.argv[2])
samples = plan_samples(config, tiny.as_base(tiny.load())).encoded(progress=progress)
print("whole", samples.sha256, flush=True)
"""


def process(folder: Path, tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that opens the same samples."""
    link = tmp_path / "path" / "controlnet_kit"
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(ROOT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(link.parent), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(tmp_path / "cache")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_make_one_cache(make_pairs: Make, tmp_path: Path) -> None:
    folder = make_pairs(24)
    outputs = [one.communicate(timeout=120)[0] for one in [process(folder, tmp_path) for _ in range(2)]]
    assert len({output.split()[-1] for output in outputs}) == 1
    assert not list((tmp_path / "cache").rglob("*.lock"))
    files = list((tmp_path / "cache").glob("latents-*/*"))
    assert len(files) == len(list((tmp_path / "cache").glob("latents-*/*.safetensors")))


def test_a_killed_build_goes_on(make_pairs: Make, tmp_path: Path, tiny_base: Base) -> None:
    folder = make_pairs(24)
    killed = process(folder, tmp_path)
    assert killed.stdout is not None
    assert any(line.startswith("latents 1") for line in killed.stdout)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = len(list((tmp_path / "cache").glob("latents-*/*.safetensors")))
    output = process(folder, tmp_path).communicate(timeout=120)[0].split("\n")
    first = next(line for line in output if line.startswith("latents"))
    assert kept and int(first.split()[1]) > 0
    fresh = plan_samples(config(folder, cache=str(tmp_path / "fresh")), tiny_base)
    assert output[-2].split()[1] == fresh.sha256


def test_a_build_can_be_stopped(make_pairs: Make, tiny_base: Base) -> None:
    def stop(what: str, *_: int) -> None:
        if what == "hints":
            raise KeyboardInterrupt

    folder = make_pairs(4)
    with pytest.raises(KeyboardInterrupt):
        plan_samples(config(folder), tiny_base).encoded(progress=stop)
    _, made = opened(tiny_base, config(folder))
    assert "latents" not in made


def test_a_full_disk_is_said_once_and_the_rest_is_made_when_there_is_room(tmp_path: Path) -> None:
    items = [store.Item(name=f"{number:08x}", place=f"{64 * number:08x}") for number in range(3)]
    with small_disk(tmp_path / "disk", "10m") as disk:
        (disk / "other").write_bytes(bytes(4 * 2**20))
        one = store.Store(folder=disk / "latents", memo=Memo(path=tmp_path / "memo.sqlite"), what="latents")
        made: list[int] = []

        def build(part: store.Chunk) -> dict[str, torch.Tensor]:
            made.extend(part)
            return {"mean": torch.zeros(len(part), 2**20, dtype=torch.bfloat16)}

        with pytest.raises(OSError, match=r"The cache .*latents cannot be written: .*data\.cache"):
            one.open(items, build, store.silent)
        assert made == [0, 1, 2] and len(list((disk / "latents").glob("*.safetensors"))) == 2
        (disk / "other").unlink()
        assert len(one.open(items, build, store.silent).item(2)["mean"]) == 2**20 and made == [0, 1, 2, 2]


def test_what_two_find_out_at_a_time_is_found_out_once(tmp_path: Path) -> None:
    memo, found = Memo(path=tmp_path / "cache" / "memo.sqlite"), list[str]()

    def find_out(name: str) -> None:
        with memo.alone("the pictures"):
            if memo.read("one") is None:
                found.append(name)
                time.sleep(0.3)
                memo.write("one", name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(find_out, "ab"))
    assert len(found) == 1 and [path.name for path in memo.path.parent.iterdir()] == ["memo.sqlite"]


def test_a_full_disk_leaves_what_is_known_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        memo = Memo(path=disk / "memo.sqlite")
        memo.write("a", "1")
        with pytest.raises(OSError, match=r"memo\.sqlite cannot be used: .*data\.cache"):
            memo.write_all({str(number): "x" * 2**12 for number in range(2**9)})
        assert memo.read_all(["a", "7"]) == {"a": "1"}
