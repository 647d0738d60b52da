"""Captions that a network writes: once for each picture, where the run computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from controlnet_kit.training.bases.base import Base
from controlnet_kit.training.config import DataConfig
from controlnet_kit.training.data.captions import open_captioner
from controlnet_kit.training.errors import DataError
from controlnet_kit.training.planned import plan_samples
from picture_files import Make, picture


@pytest.fixture
def blip(tmp_path: Path) -> str:
    """BLIP's own classes at a tiny size, in a folder as a user has it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "car"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = {**size, **tokens, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    vision = {**size, "image_size": 32, "patch_size": 16}
    config = transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.BlipForConditionalGeneration(config).save_pretrained(tmp_path / "blip")
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(tmp_path / "blip")
    return str(tmp_path / "blip")


def test_it_says_the_same_every_time(blip: str) -> None:
    captioner = open_captioner(blip)
    first = captioner([picture(0), picture(1)])
    assert len(first) == 2 and first == captioner([picture(0), picture(1)])
    assert captioner.stamp == open_captioner(blip).stamp


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "config.json"])
def test_a_model_that_changed_is_another_one(blip: str, name: str) -> None:
    captioner, path = open_captioner(blip), Path(blip, name)
    if name == "pytorch_model.bin":
        Path(blip, "model.safetensors").unlink()
        path.write_bytes(b"some weights")
    before = captioner.stamp
    path.write_bytes(path.read_bytes() + b" ")
    assert captioner.stamp != before


def test_a_data_set_gets_its_captions_once(blip: str, make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(3, captions=False)
    config = DataConfig(
        path=str(folder),
        resolution=128,
        validation=0,
        cache=str(folder.parent / "cache"),
        captions="automatic",
        captioner=blip,
    )
    seen: list[tuple[str, int, int]] = []
    first = plan_samples(config, tiny_base, progress=lambda *stage: seen.append(stage))
    assert ("captions", 3, 3) in seen
    captioner = open_captioner(blip)
    assert [[row.caption] for row in first.rows] == [
        captioner([row.example.found.pair.image.read()]) for row in first.rows
    ]
    seen.clear()
    again = plan_samples(config, tiny_base, progress=lambda *stage: seen.append(stage))
    assert again.sha256 == first.sha256 and "captions" not in {what for what, _, _ in seen}


def test_it_is_missed_before_pictures_are_read(make_pairs: Make, tiny_base: Base) -> None:
    folder = make_pairs(3, captions=False)
    config = DataConfig(path=str(folder), resolution=128, cache=str(folder.parent / "cache"), captions="automatic")
    with pytest.raises(DataError, match="folder with the files of a BLIP"):
        plan_samples(config, tiny_base)
    with pytest.raises(DataError, match="holds out 3 of 3 pairs; nothing is left"):
        plan_samples(replace(config, captions="empty", validation=3), tiny_base)
    assert not Path(config.cache).exists()


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_it_needs_a_folder(folder: str) -> None:
    with pytest.raises(DataError, match="folder with the files of a BLIP"):
        open_captioner(folder)


def test_a_folder_without_such_a_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no BLIP model"):
        open_captioner(str(tmp_path))
