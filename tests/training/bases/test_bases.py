"""Bases from files and folders: the parts equal those of diffusers, transformers, open_clip and the host."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.diffusion import NoiseSchedule
from controlnet_kit.cn_core.errors import CheckpointError
from controlnet_kit.cn_core.files.keymaps import inverse, rename
from controlnet_kit.cn_core.files.keymaps.unet import unet_keys
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.training.bases import clip, ldm
from controlnet_kit.training.bases.base import TextEncoder, words_beyond
from controlnet_kit.training.bases.open import HALF, NON_EMA, WANTED, open_base
from controlnet_kit.training.bases.tokenizer import END, START, Tokenizer, from_package
from controlnet_kit.training.config import BaseConfig
from controlnet_kit.training.errors import ConfigError
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

WIDTHS = (32, 64)
UNET: dict[str, Any] = {
    "block_out_channels": WIDTHS,
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
VAE: dict[str, Any] = {
    "block_out_channels": WIDTHS,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "scaling_factor": 0.5,
}
CAPTIONS = ["a red circle", "", "Pale GOLDEN rod, circle; with old lace background!"]
PICTURES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))


def text_config(width: int = 32, **settings: Any) -> CLIPTextConfig:
    """A small CLIP with the whole vocabulary."""
    sizes: dict[str, Any] = {"intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 1, **settings}
    return CLIPTextConfig(vocab_size=END + 1, hidden_size=width, bos_token_id=START, eos_token_id=END, **sizes)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """A base with random weights, as diffusers and transformers have it."""
    torch.manual_seed(0)
    return {
        "unet": UNet2DConditionModel(**UNET).eval(),
        "vae": AutoencoderKL(**VAE).eval(),
        "text_encoder": CLIPTextModel(text_config()).eval(),
        "scheduler": DDPMScheduler(prediction_type="v_prediction"),
    }


@pytest.fixture(scope="module")
def folder(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk, with a tokenizer of a few words."""
    path = tmp_path_factory.mktemp("base")
    for name, part in parts.items():
        part.save_pretrained(path / name)
    save_tokenizer(path / "tokenizer")
    return path


def save_tokenizer(path: Path) -> None:
    """CLIP's files, with letters for its only tokens."""
    path.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz,.;!"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"})
    )


def test_a_diffusers_folder(folder: Path, parts: dict[str, Any]):
    base = open_base(BaseConfig(path=str(folder)))
    assert (base.prediction, base.family, base.name) == ("v", "SD-shaped", folder.name)
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 77, 32)
    with torch.no_grad():
        expected = parts["unet"](x, t, context).sample
        torch.testing.assert_close(base.unet(x, t, context), expected, rtol=1e-5, atol=1e-5)
        posterior = parts["vae"].encode(2 * PICTURES - 1).latent_dist
        torch.testing.assert_close(base.codec.encode(PICTURES).mean, posterior.mean * 0.5)
        torch.testing.assert_close(base.codec.encode(PICTURES).std, posterior.std * 0.5)
        decoded = parts["vae"].decode(posterior.mean).sample / 2 + 0.5
        torch.testing.assert_close(base.codec.decode(posterior.mean * 0.5), decoded.clamp(0, 1))
    assert base.codec.factor == 2  # of this small one
    assert base.text.encode(["abc", "c"]).context.shape == (2, 77, 32)
    # Letters are the only tokens of its tokenizer: 75 of them are the first 25 words.
    assert [base.text.words_lost(words) for words in ("a " * 80, "abc " * 40, "abc " * 25, "")] == [5, 15, 0, 0]
    assert not any(parameter.requires_grad for parameter in base.unet.parameters())


FILES = """
.gitattributes README.md model_index.json sd_xl_base_1.0.safetensors sd_xl_base_1.0_0.9vae.safetensors
feature_extractor/preprocessor_config.json safety_checker/config.json safety_checker/model.safetensors
scheduler/scheduler_config.json text_encoder/config.json text_encoder/flax_model.msgpack
text_encoder/model.fp16.safetensors text_encoder/model.onnx text_encoder/model.safetensors
text_encoder/openvino_model.bin text_encoder/pytorch_model.bin
text_encoder_2/config.json text_encoder_2/model.safetensors tokenizer/merges.txt tokenizer/vocab.json
tokenizer_2/merges.txt tokenizer_2/vocab.json unet/config.json unet/diffusion_pytorch_model.fp16.safetensors
unet/diffusion_pytorch_model.non_ema.safetensors unet/diffusion_pytorch_model.safetensors unet/model.onnx
unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors
vae_1_0/config.json vae_1_0/diffusion_pytorch_model.safetensors vae_decoder/config.json
"""
"""What repositories of Stable Diffusion hold."""
NEEDED = """
model_index.json scheduler/scheduler_config.json text_encoder/config.json text_encoder/model.safetensors
text_encoder_2/config.json text_encoder_2/model.safetensors tokenizer/merges.txt tokenizer/vocab.json
tokenizer_2/merges.txt tokenizer_2/vocab.json unet/config.json unet/diffusion_pytorch_model.safetensors
vae/config.json vae/diffusion_pytorch_model.safetensors
"""


def test_no_more_is_downloaded_than_is_read():
    found = filter_repo_objects(FILES.split(), allow_patterns=list(WANTED), ignore_patterns=[HALF, NON_EMA])
    assert list(found) == NEEDED.split()


def test_a_repository_has_revisions(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the hub's cache, as it is after a download."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    for revision, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        (repository / "refs" / revision).write_text(commit)
        shutil.copytree(folder, repository / "snapshots" / commit)
    assert open_base(BaseConfig(path="hub:someone/model")).name == "a" * 40
    assert open_base(BaseConfig(path="hub:someone/model@v2")).name == "b" * 40
    with pytest.raises(CheckpointError, match="someone/model@v3 cannot be had"):
        open_base(BaseConfig(path="hub:someone/model@v3"))


def with_scheduler(folder: Path, path: Path, **changes: Any) -> Path:
    """The folder with other settings of its scheduler; None takes one out."""
    shutil.copytree(folder, path)
    file = path / "scheduler" / "scheduler_config.json"
    settings = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
    ],
    ids=str,
)
def test_the_schedule_of_a_folder_is_that_of_its_scheduler(folder: Path, tmp_path: Path, settings: dict[str, Any]):
    path = with_scheduler(folder, tmp_path / "base", **settings)
    base = open_base(BaseConfig(path=str(path)))
    theirs: Any = DDPMScheduler.from_pretrained(path / "scheduler")
    torch.testing.assert_close(base.schedule.alpha_bar, theirs.alphas_cumprod, rtol=1e-5, atol=1e-5)
    shutil.rmtree(path / "scheduler")
    assert open_base(BaseConfig(path=str(path))).schedule == NoiseSchedule()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2'"),
        ({"num_train_timesteps": 500}, "num_train_timesteps 500"),
        ({"trained_betas": [0.1, 0.2]}, r"trained_betas \[0\.1"),
        ({"beta_end": 2.0}, "beta_end 2"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_schedule": None}, "FlowMatch.* no beta_schedule"),
        ({"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}, 'set base.prediction to "v"'),
    ],
    ids=str,
)
def test_other_schedules_are_refused(folder: Path, tmp_path: Path, settings: dict[str, Any], words: str):
    path = with_scheduler(folder, tmp_path / "base", **settings)
    with pytest.raises(CheckpointError, match=words):
        open_base(BaseConfig(path=str(path)))


def test_marks_of_a_file_tell_its_schedule(folder: Path, parts: dict[str, Any], tmp_path: Path):
    path, vae = tmp_path / "base.safetensors", str(folder / "vae")
    tensors = ldm_file(parts, path)
    for marks, zero_snr in (((), False), ((ldm.V_MARK,), False), ((ldm.V_MARK, "ztsnr"), True)):
        save_file({**tensors, **{mark: torch.zeros(()) for mark in marks}}, path)
        assert open_base(BaseConfig(path=str(path), vae=vae)).schedule == NoiseSchedule(zero_snr=zero_snr)


def test_what_no_one_asks_for_is_not_read(folder: Path, tmp_path: Path):
    """A run whose cache is complete needs neither the autoencoder nor the text encoder."""
    shutil.copytree(folder, tmp_path / "base")
    base = open_base(BaseConfig(path=str(tmp_path / "base")))
    whole = open_base(BaseConfig(path=str(folder)))
    assert (base.codec.identity, base.text.identity) == (whole.codec.identity, whole.text.identity)
    shutil.rmtree(tmp_path / "base")
    assert (base.codec.factor, base.codec.channels, base.text.tokens) == (2, 4, 77)
    with pytest.raises(CheckpointError, match="holds no autoencoder"):
        base.codec.encode(PICTURES)


def test_what_may_be_replaced(folder: Path):
    base = open_base(BaseConfig(path=str(folder), prediction="eps", vae=str(folder / "vae")))
    assert base.prediction == "eps"
    assert open_base(BaseConfig(path=str(folder)), text=base.text).text is base.text


def ldm_file(parts: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The UNet of `parts` and a small CLIP under LDM's keys, with the host's autoencoder of random weights."""
    config = UNetConfig(
        model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), transformer_depth=(1, 0), context_dim=32
    )
    names = inverse(unet_keys(config))
    unet = {f"model.diffusion_model.{k}": v for k, v in rename(parts["unet"].state_dict(), names).items()}
    text = {
        f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}": value
        for key, value in parts["text_encoder"].state_dict().items()
    }
    tensors = {**unet, **text}
    save_file(tensors, path)
    return tensors


def test_the_text_encoder_of_an_sd1_file_is_transformers_own(parts: dict[str, Any], tmp_path: Path):
    tensors = ldm_file(parts, tmp_path / "base.safetensors")
    encoder = ldm.text_encoder(tmp_path / "base.safetensors", tensors, None)
    words = from_package(pad=END)
    with torch.no_grad():
        expected = parts["text_encoder"](words(CAPTIONS)).last_hidden_state
    found = encoder.encode(CAPTIONS)
    # The file does not tell the activation; CLIP-L's is transformers' default.
    torch.testing.assert_close(found.context, expected)
    assert found.pooled is None


def test_texts_of_a_file_are_known_by_what_the_tokenizer_holds(parts: dict[str, Any], tmp_path: Path):
    """Not by where it lies."""
    save_tokenizer(tmp_path / "words")
    shutil.copytree(tmp_path / "words", tmp_path / "copied")
    (tmp_path / "copied" / "README.md").write_text("of mine")
    path = tmp_path / "base.safetensors"
    tensors = ldm_file(parts, path)

    def identity(folder: Path | None) -> str:
        return ldm.text_encoder(path, tensors, folder).identity

    before = identity(tmp_path / "words")
    assert before == identity(tmp_path / "copied") != identity(None)
    (tmp_path / "words" / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    assert identity(tmp_path / "words") != before


def saved_text_encoder(folder: Path, tensors: dict[str, Tensor]) -> TextEncoder:
    """Of a file with these weights."""
    path = folder / "base.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return ldm.text_encoder(path, tensors, None)


def test_open_clip_is_read_as_open_clip_runs_it(tmp_path: Path):
    """SD 2.x: the last layer but one after the final norm. SDXL: the same without norm, and the pooled projection."""
    from open_clip.model import CLIPTextCfg
    from open_clip.transformer import TextTransformer

    torch.manual_seed(1)
    original: Any = TextTransformer(vocab_size=END + 1, output_dim=48, width=64, heads=1, layers=3).eval()
    assert CLIPTextCfg().pool_type == "argmax"
    torch.nn.init.normal_(original.text_projection, std=0.1)
    tokens = from_package(pad=0)(CAPTIONS)
    layers: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda *a: layers.append(a[-1])) for block in original.transformer.resblocks]
    with torch.no_grad():
        pooled = original(tokens)
        for hook in hooks:
            hook.remove()
        before_last = layers[1] if layers[1].shape[0] == len(CAPTIONS) else layers[1].transpose(0, 1)
        normed = original.ln_final(before_last)
    state = original.state_dict()
    sd2 = {f"{ldm.OPEN_CLIP}{key}": value for key, value in state.items()}
    torch.testing.assert_close(saved_text_encoder(tmp_path, sd2).encode(CAPTIONS).context, normed, rtol=1e-4, atol=1e-5)
    sdxl = {f"{ldm.SDXL_OPEN_CLIP}{key}": value for key, value in state.items()}
    first = CLIPTextModel(text_config()).eval()
    sdxl |= {
        f"{ldm.SDXL_CLIP_L}text_model.{key.removeprefix('text_model.')}": v for key, v in first.state_dict().items()
    }
    found = saved_text_encoder(tmp_path, sdxl).encode(CAPTIONS)
    assert found.context.shape == (3, 77, 32 + 64)
    torch.testing.assert_close(found.context[..., 32:], before_last, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pooled, pooled, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        expected = first(from_package(pad=END)(CAPTIONS), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(found.context[..., :32], expected)


def test_the_prediction_of_a_file():
    bias = torch.linspace(-1, 1, 64)
    for family, scale, marks, expected in (
        ("SD 2.x", 0.05, {}, "eps"),
        ("SD 2.x", 0.5, {}, "v"),
        ("SD 1.x", 0.5, {}, "eps"),
        ("SDXL", 0.0, {ldm.V_MARK: torch.zeros(())}, "v"),
    ):
        assert ldm.prediction(marks, {ldm.V_NORM: scale * bias}, family) == expected


def test_tokens():
    words = Tokenizer(numbers=lambda text: [7] * len(text.split()), pad=0, window=8)
    assert words(["a b", "a b c d e f g h"]).tolist() == [[START, 7, 7, END, 0, 0, 0, 0], [START, *[7] * 6, END]]
    assert words.fits("a b c d e f") and not words.fits("a b c d e f g")
    assert from_package(pad=END)(["a cat"])[0, :5].tolist() == [START, 320, 2368, END, END]


def test_words_beyond():
    """Those that have to go for the rest to fit: here, into ten letters and spaces."""
    captions = ("", "short", "ten letter", "ten letters", "far too long", "incomprehensibilities", "a b c d e f g")
    found = [words_beyond(caption, lambda text: len(text) <= 10) for caption in captions]
    assert found == [0, 0, 0, 1, 1, 1, 2]


def test_what_is_no_base_is_said(folder: Path, parts: dict[str, Any], tmp_path: Path):
    controlnet = tmp_path / "canny.safetensors"
    save_file({"zero_convs.0.0.weight": torch.zeros(1), "input_blocks.0.0.weight": torch.zeros(1)}, controlnet)
    whole = tmp_path / "whole.safetensors"
    tensors = ldm_file(parts, whole)
    wide = tmp_path / "inpaint.safetensors"
    first = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**tensors, first: torch.zeros(32, 9, 3, 3)}, wide)
    small = tmp_path / "fp8.safetensors"
    save_file({k: v.to(torch.float8_e4m3fn) if "diffusion" in k else v for k, v in tensors.items()}, small)
    for path, kind, words in (
        (tmp_path / "nothing", ConfigError, "no file or folder"),
        (tmp_path, ConfigError, "without unet/config.json"),
        (controlnet, CheckpointError, "is no base"),
        (whole, CheckpointError, "has no autoencoder"),
        (wide, CheckpointError, "inpainting"),
        (small, CheckpointError, "float8"),
    ):
        with pytest.raises(kind, match=words):
            open_base(BaseConfig(path=str(path)))
    base = open_base(BaseConfig(path=str(whole), vae=str(folder / "vae")))
    assert base.prediction == "eps"


def test_a_missing_weight_is_named(parts: dict[str, Any]):
    tensors = {k: v for k, v in parts["text_encoder"].state_dict().items() if "layers.1.mlp.fc2.bias" not in k}
    with pytest.raises(CheckpointError, match=r"fc2\.bias"):
        clip.build(tensors, activation="gelu", name="base")
    with pytest.raises(CheckpointError, match="a CLIP text model was expected"):
        clip.build({}, activation="gelu", name="base")


def test_projection_is_kept():
    torch.manual_seed(4)
    original = CLIPTextModelWithProjection(text_config(projection_dim=24, hidden_act="gelu")).eval()
    model = clip.build(original.state_dict(), activation="gelu", name="base")
    tokens = from_package(pad=0)(CAPTIONS)
    with torch.no_grad():
        assert torch.equal(model(tokens).text_embeds, original(tokens).text_embeds)
