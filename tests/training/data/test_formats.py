"""Every format gives the same pairs; hostile and incomplete ones say what is wrong."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data.formats.huggingface import Cell
from controlnet_kit.training.data.formats.open import format_of, open_pairs, scan
from controlnet_kit.training.data.formats.tiny_world import TinyWorld
from controlnet_kit.training.data.pairs import Pairs, each, sha256
from controlnet_kit.training.data.pictures import Encoded
from controlnet_kit.training.errors import DataError
from controlnet_kit.training.synth import world
from picture_files import Make, edges, picture, save

COUNT = 3


def opened(path: Path, **settings: object) -> Pairs:
    """The pairs at a path."""
    return open_pairs(DataConfig(path=str(path), **settings))  # pyright: ignore[reportArgumentType]


def as_pairs(folder: Path) -> str:
    """images/, hints/, a caption beside each picture."""
    for seed in range(COUNT):
        save(folder / "images" / "sub" / f"{seed}.png", picture(seed))
        save(folder / "conditioning_images" / "sub" / f"{seed}.png", edges(picture(seed)))
        (folder / "images" / "sub" / f"{seed}.txt").write_text(world.compose(seed).caption + "\n")
    return "pairs"


def as_imagefolder(folder: Path) -> str:
    """metadata.jsonl in a split's folder."""
    rows: list[str] = []
    for seed in range(COUNT):
        save(folder / "train" / f"{seed}.png", picture(seed))
        save(folder / "train" / "cond" / f"{seed}.png", edges(picture(seed)))
        names = {"file_name": f"{seed}.png", "conditioning_image_file_name": f"cond/{seed}.png"}
        rows.append(json.dumps({**names, "text": world.compose(seed).caption}))
    (folder / "train" / "metadata.jsonl").write_text("\n".join(rows))
    return "imagefolder"


def as_csv(folder: Path) -> str:
    """The same with metadata.csv."""
    as_imagefolder(folder)
    rows = [json.loads(line) for line in (folder / "train" / "metadata.jsonl").read_text().splitlines()]
    (folder / "train" / "metadata.jsonl").unlink()
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (folder / "train" / "metadata.csv").write_text("\n".join(lines))
    return "imagefolder"


def as_huggingface(folder: Path) -> str:
    """save_to_disk of the datasets library."""
    import datasets
    from PIL import Image

    columns = {
        "image": [Image.fromarray(picture(seed)) for seed in range(COUNT)],
        "conditioning_image": [Image.fromarray(edges(picture(seed))) for seed in range(COUNT)],
        "text": [world.compose(seed).caption for seed in range(COUNT)],
    }
    features = {"image": datasets.Image(), "conditioning_image": datasets.Image(), "text": datasets.Value("string")}
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(str(folder))
    return "huggingface"


def as_webdataset(folder: Path) -> str:
    """Two archives by the webdataset library."""
    from webdataset.writer import TarWriter

    folder.mkdir()
    for shard, seeds in enumerate([(0, 1), (2,)]):
        with TarWriter(str(folder / f"{shard:03d}.tar")) as writer:
            for seed in seeds:
                parts = {"png": picture(seed), "hint.png": np.repeat(edges(picture(seed))[..., None], 3, axis=2)}
                writer.write({"__key__": f"{seed:06d}", **parts, "json": {"caption": world.compose(seed).caption}})
    return "webdataset"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    as_huggingface(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs a package that is not .*python -m pip install datasets"):
        opened(tmp_path)


@pytest.mark.parametrize("make", [as_pairs, as_imagefolder, as_csv, as_huggingface, as_webdataset])
def test_all_formats_give_the_same_pairs(tmp_path: Path, make: Callable[[Path], str]) -> None:
    folder = tmp_path / "set"
    kind = make(folder)
    assert format_of(str(folder)) == kind
    pairs = opened(folder)
    assert len(pairs) == COUNT and len({pair.key for pair in each(pairs)}) == COUNT
    for seed, pair in enumerate(each(pairs)):
        assert pair.hint is not None and pair.caption == world.compose(seed).caption
        assert np.array_equal(pair.image.read(), picture(seed))
        assert np.array_equal(pair.hint.read()[..., 0], edges(picture(seed)))
        assert pair.image.size() == (128, 128) and pair.image.stamp() == pairs[seed].image.stamp()
    with pytest.raises(IndexError):
        pairs[COUNT]
    assert sha256(pairs) == sha256(opened(folder))


def test_the_tutorials_format(fill50k: Path) -> None:
    pairs = opened(fill50k)
    assert format_of(str(fill50k)) == "fill50k" and len(pairs) == COUNT
    first = pairs[0]
    assert first.hint is not None and np.array_equal(first.image.read(), picture(0))
    assert np.array_equal(first.hint.read()[..., 0], edges(picture(0)))


def test_the_tiny_world() -> None:
    pairs = open_pairs(DataConfig(format="tiny-world", count=5))
    assert len(pairs) == 5 and np.array_equal(pairs[4].image.read(), picture(4))


def test_pictures_alone_need_a_preprocessor(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.png", picture(0))
    with pytest.raises(DataError, match="no hints"):
        opened(tmp_path / "set", captions="empty")
    assert len(opened(tmp_path / "set", captions="empty", hints="canny")) == 1


@pytest.mark.parametrize("gone", ["images/001.png", "hints/001.png"])
def test_a_missing_partner_is_named(make_pairs: Make, gone: str) -> None:
    folder = make_pairs(3)
    (folder / gone).unlink()
    with pytest.raises(DataError, match=r"is not complete \(001\)"):
        opened(folder)
    assert [fault.key for fault in scan(DataConfig(path=str(folder))).faults] == ["001"]


def test_hints_that_are_not_used_are_not_missed(make_pairs: Make, fill50k: Path, tmp_path: Path) -> None:
    folder = make_pairs(COUNT)
    (folder / "hints" / "001.png").unlink()
    (folder / "images" / "002.png").unlink()
    rows = [json.loads(line) for line in (fill50k / "prompt.json").read_text().splitlines()]
    (fill50k / "source" / "1.png").unlink()
    del rows[2]["source"]
    (fill50k / "prompt.json").write_text("\n".join(map(json.dumps, rows)))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for suffix in ("png", "hint.png", "control.png"):
            tar.add(save(tmp_path / "x.png", picture(0)), f"0.{suffix}")
    for path, kept, missed in ((folder, 2, ["002"]), (fill50k, 3, []), (tmp_path / "a.tar", 1, [])):
        found = scan(DataConfig(path=str(path), hints="canny"))
        assert len(found) == kept and [fault.key for fault in found.faults] == missed
        assert len(scan(DataConfig(path=str(path))).faults) > len(missed)
    (folder / "captions" / "002.txt").unlink()
    assert len(opened(folder, hints="canny")) == 2


@pytest.mark.parametrize("sub", ["", "sub"])
def test_pictures_among_their_other_folders(make_pairs: Make, sub: str) -> None:
    folder = make_pairs(COUNT)
    expected = sha256(opened(folder))
    for path in [*(folder / "images").iterdir(), *(folder / "hints").iterdir(), *(folder / "captions").iterdir()]:
        place = folder / sub if path.parent.name == "images" else path.parent / sub
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    (folder / "images").rmdir()
    pairs = opened(folder, format="pairs")
    assert [pair.key for pair in each(pairs)] == [Path(sub, f"{seed:03d}").as_posix() for seed in range(COUNT)]
    assert sub or sha256(pairs) == expected
    save(folder / "captions" / "photo.png", picture(0))
    assert [fault.key for fault in scan(DataConfig(path=str(folder), format="pairs")).faults] == ["captions/photo"]


def test_no_captions_at_all(make_pairs: Make) -> None:
    with pytest.raises(DataError, match="no captions"):
        opened(make_pairs(2, captions=False))
    folder = make_pairs(2, name="blank")
    for path in (folder / "captions").iterdir():
        path.write_text("\n")
    with pytest.raises(DataError, match="all are empty"):
        opened(folder)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/secret.png", "C:\\\\secret.png", "a/../../b.png"])
def test_lists_cannot_point_out_of_their_folder(fill50k: Path, name: str) -> None:
    (fill50k / "prompt.json").write_text(f'{{"source": "source/0.png", "target": "{name}", "prompt": "x"}}')
    with pytest.raises(DataError, match="not below"):
        opened(fill50k)


def test_links_out_of_the_folder_are_refused(fill50k: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "outside.png", picture(0))
    (fill50k / "target" / "0.png").unlink()
    (fill50k / "target" / "0.png").symlink_to(outside)
    with pytest.raises(DataError, match="not below"):
        opened(fill50k)


@pytest.mark.parametrize(("line", "reason"), [("{", "line 1 is no JSON"), ("[1]", "an object per line")])
def test_a_broken_list(fill50k: Path, line: str, reason: str) -> None:
    (fill50k / "prompt.json").write_text(line)
    with pytest.raises(DataError, match=reason):
        opened(fill50k)


def test_a_list_that_names_what_is_not_there(fill50k: Path) -> None:
    (fill50k / "source" / "1.png").unlink()
    with pytest.raises(DataError, match="target/1"):
        opened(fill50k)


def test_a_broken_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="no whole tar"):
        opened(path)
    with tarfile.open(path, "w") as tar:
        tar.add(save(tmp_path / "b.hint.png", picture(0)), "b.hint.png")
    with pytest.raises(DataError, match="one picture"):
        opened(path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"path": "nowhere"}, "is not there"),
        ({"path": "fusing/fill50k"}, "Names on the hub need data.format huggingface"),
        ({"path": ""}, "No data set is named"),
        ({"format": "fill50k"}, "no prompt.json"),
        ({"count": 9}, "asks for 9"),
        ({"quarantine": "nowhere.txt"}, "cannot be read"),
    ],
)
def test_bad_settings(make_pairs: Make, settings: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_pairs(DataConfig(**{"path": str(make_pairs(2)), **settings}))  # pyright: ignore[reportArgumentType]


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.doc").touch()
    with pytest.raises(DataError, match="no data set that is known"):
        opened(tmp_path)


def test_quarantined_pairs_are_left_out(make_pairs: Make, tmp_path: Path) -> None:
    (tmp_path / "quarantine.txt").write_text("001\n003\nno such pair\n")
    folder = make_pairs(4)
    (folder / "hints" / "003.png").unlink()
    pairs = opened(folder, quarantine=str(tmp_path / "quarantine.txt"))
    assert [pair.key for pair in each(pairs)] == ["000", "002"] and not pairs.faults


def test_two_pictures_of_one_name(make_pairs: Make) -> None:
    folder = make_pairs(2)
    save(folder / "images" / "000.jpg", picture(0))
    with pytest.raises(DataError, match="same name"):
        opened(folder)


def repeated(folder: Path, pictures: int, times: int) -> Path:
    """metadata.jsonl with some pictures, each several times with another caption."""
    for seed in range(pictures):
        save(folder / f"{seed}.png", picture(seed))
        save(folder / "cond" / f"{seed}.png", edges(picture(seed)))
    rows = [
        {"file_name": f"{seed}.png", "conditioning_image_file_name": f"cond/{seed}.png", "text": f"{seed} as {number}"}
        for seed in range(pictures)
        for number in range(times)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_pictures_that_are_listed_again_have_keys_of_their_own(tmp_path: Path) -> None:
    folder = repeated(tmp_path / "set", 2, 3)
    pairs = opened(folder)
    assert [pair.key for pair in each(pairs)] == ["0", "0#2", "0#3", "1", "1#2", "1#3"]
    assert [pair.caption for pair in each(pairs)][1] == "0 as 1"
    save(folder / "0.jpg", picture(2))
    save(folder / "0#2.png", picture(3))
    rows = [{"file_name": name} for name in ("0.png", "0.jpg", "gone.png", "gone.jpg", "0#2.png")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = scan(DataConfig(path=str(folder)))
    assert [pair.key for pair in each(found)] == ["0", "0#2", "0#2#2"]
    assert [fault.key for fault in found.faults] == ["gone", "gone#2"]


@pytest.mark.parametrize("lacks", ["text", "conditioning_image_file_name"])
def test_columns_are_those_of_all_rows(tmp_path: Path, lacks: str) -> None:
    as_imagefolder(tmp_path / "set")
    path = tmp_path / "set" / "train" / "metadata.jsonl"
    first, *others = (json.loads(line) for line in path.read_text().splitlines())
    del first[lacks]
    path.write_text("\n".join(map(json.dumps, [first, *others])))
    found = scan(DataConfig(path=str(tmp_path / "set")))
    captions = [None if lacks == "text" and seed == 0 else world.compose(seed).caption for seed in range(COUNT)]
    assert [pair.caption for pair in each(found)] == (captions if lacks == "text" else captions[1:])
    assert all(pair.hint is not None for pair in each(found))
    assert [fault.key for fault in found.faults] == ([] if lacks == "text" else ["metadata.jsonl:1"])


def test_a_row_with_a_cell_too_many(tmp_path: Path) -> None:
    as_csv(tmp_path / "set")
    path = tmp_path / "set" / "train" / "metadata.csv"
    path.write_text(path.read_text().replace("file_name,conditioning_image_file_name", "name,hint") + ",blue")
    with pytest.raises(DataError, match="has the columns name, hint, text; expected file_name"):
        opened(tmp_path / "set")


def test_names_that_repeat_in_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for seed, name in enumerate(("x", "y", "x")):
            tar.add(save(tmp_path / f"{seed}.png", picture(seed)), f"{name}.png")
    pairs = opened(path, hints="canny", captions="empty")
    assert [pair.key for pair in each(pairs)] == ["a/x", "a/y", "a/x#2"]


CAPTIONS = [("a  red\ncar", "a red car"), (["a  red car", "a car"], "a red car"), ([], None), (None, None)]


def listed_captions(folder: Path, captions: Sequence[object]) -> None:
    """metadata.jsonl with captions of any kind."""
    for number in range(len(captions)):
        save(folder / f"{number}.png", picture(number))
    rows = [{"file_name": f"{number}.png", "text": caption} for number, caption in enumerate(captions)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def tarred_captions(folder: Path, captions: Sequence[object]) -> None:
    """Archives with captions of any kind in JSON."""
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, caption in enumerate(captions):
            (folder / "json").write_text(json.dumps({"text": caption}))
            tar.add(save(folder / f"{number}.png", picture(number)), f"{number}.png")
            tar.add(folder / "json", f"{number}.json")


@pytest.mark.parametrize("make", [listed_captions, tarred_captions])
def test_captions_are_texts_or_lists_of_them(tmp_path: Path, make: Callable[[Path, Sequence[object]], None]) -> None:
    make(tmp_path / "set", [given for given, _ in CAPTIONS])
    found = [pair.caption for pair in each(opened(tmp_path / "set", hints="canny"))]
    assert found == [expected for _, expected in CAPTIONS]
    make(tmp_path / "other", ["a red car", {"en": "a car"}, [7]])
    faults = scan(DataConfig(path=str(tmp_path / "other"))).faults
    assert [fault.problem for fault in faults] == ["bad entry", "bad entry"]
    assert "its caption is {'en': 'a car'}; expected a text, or a list of texts" in faults[0].text


def saved_captions(folder: Path, captions: Sequence[object]) -> Path:
    """A table with captions of any one type."""
    import datasets
    from PIL import Image

    columns = {"image": [Image.fromarray(picture(seed)) for seed in range(len(captions))], "text": list(captions)}
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder))
    return folder


def test_captions_of_tables(tmp_path: Path) -> None:
    pairs = opened(saved_captions(tmp_path / "lists", [["a  red car", "a car"], [], None]), hints="canny")
    assert [pair.caption for pair in each(pairs)] == ["a red car", None, None]
    with pytest.raises(DataError, match="has the type int64 in its column text; expected texts"):
        opened(saved_captions(tmp_path / "numbers", [1, 2]), hints="canny")


def test_pairs_that_cost_time_are_made_once() -> None:
    pairs = open_pairs(DataConfig(format="tiny-world", count=5))
    assert all(first is second for first, second in zip(each(pairs), each(pairs), strict=True))
    assert pairs[4] == TinyWorld(count=5)[4]
    with pytest.raises(IndexError):
        pairs[5]


def test_a_table_has_a_part_for_each_column_once(tmp_path: Path) -> None:
    as_huggingface(tmp_path / "set")
    first, second = (pair.image for pair in list(each(opened(tmp_path / "set")))[:2])
    assert isinstance(first, Encoded) and isinstance(second, Encoded)
    assert isinstance(first.source, Cell) and isinstance(second.source, Cell)
    assert first.source.table is second.source.table and first.source.table.column_names == ["image"]
