"""Which pairs are held out: always the same ones, and never a picture that is trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data.pairs import Pair
from controlnet_kit.training.data.pictures import Drawn, hashed
from controlnet_kit.training.data.plan import Captioned, split
from controlnet_kit.training.data.survey import Known, Surveyed
from controlnet_kit.training.errors import DataError
from controlnet_kit.training.planned import plan_samples
from picture_files import edges, picture, save


def captioned(pictures: Sequence[int]) -> list[Captioned]:
    """A pair for each number, which names its picture."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pairs = [
        Pair(key=f"{row:03d}", image=Drawn(name="x", pixels=pixels), hint=None, caption="x")
        for row in range(len(pictures))
    ]
    return [
        Captioned(
            found=Surveyed(pair=pair, image=Known(size=(8, 8), digest=str(number), low=0, high=255), hint=None),
            caption="x",
        )
        for pair, number in zip(pairs, pictures, strict=True)
    ]


def keys(pairs: Sequence[Captioned]) -> list[str]:
    """Of pairs."""
    return [pair.found.pair.key for pair in pairs]


@pytest.mark.parametrize(("held_out", "count"), [(0, 0), (7, 7), (0.1, 4), (0.001, 1)])
def test_of_different_pictures_the_first_ones_by_hash_are_held_out(held_out: float, count: int) -> None:
    train, validation = split(captioned(range(40)), held_out)
    names = [f"{row:03d}" for row in range(40)]
    assert keys(validation) == sorted(sorted(names, key=lambda key: hashed([key]))[:count])
    assert keys(train) == [name for name in names if name not in keys(validation)]


def test_the_pairs_of_a_picture_stay_together() -> None:
    pairs = captioned([row // 5 for row in range(50)])
    for held_out in (1, 3, 5, 12):
        train, validation = split(pairs, held_out)
        pictures = [{pair.found.image.digest for pair in side} for side in (train, validation)]
        assert not pictures[0] & pictures[1] and len(train) + len(validation) == 50
        assert held_out <= len(validation) == 5 * len(pictures[1]) < held_out + 5
    with pytest.raises(DataError, match=r"holds out 46 of 50 pairs, and those of one picture stay together; nothing"):
        split(pairs, 46)
    with pytest.raises(DataError, match="holds out 1 of 3 pairs"):
        split(captioned([7, 7, 7]), 1)


def test_no_held_out_picture_is_in_a_row(tmp_path: Path, tiny_base: Base) -> None:
    """metadata.jsonl with four pictures, three captions each."""
    lines: list[str] = []
    for seed in range(4):
        save(tmp_path / "set" / f"{seed}.png", picture(seed))
        save(tmp_path / "set" / "cond" / f"{seed}.png", edges(picture(seed)))
        names = {"file_name": f"{seed}.png", "conditioning_image_file_name": f"cond/{seed}.png"}
        lines += [json.dumps({**names, "text": f"{seed} as {number}"}) for number in range(3)]
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(lines))
    config = DataConfig(path=str(tmp_path / "set"), resolution=128, validation=2, cache=str(tmp_path / "cache"))
    samples = plan_samples(config, tiny_base)
    sides = [{row.example.found.image.digest for row in rows} for rows in (samples.rows, samples.held_out)]
    assert [len(side) for side in sides] == [3, 1] and not sides[0] & sides[1]
    assert len(samples.rows) == 9 and len({row.caption for row in samples.rows}) == 9
    assert len(samples.plan.latents.items) == 4 and len(samples.plan.texts.items) == 13
