"""The text encoders of Stable Diffusion: one or two CLIPs, run by transformers.

Shapes: B captions, M = 77 tokens, D width of their embeddings, P width of the pooled one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ...cn_core.errors import CheckpointError
from ...cn_core.files.checkpoint import check_strictly
from .base import Text, words_beyond
from .tokenizer import END, START, WINDOW, Tokenizer

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

Layer = Literal["last", "penultimate"]
"""Which layer's output the UNet takes: the last one after the final norm (SD 1.x, SD 2.x without its last layer), or
the one before it without norm (SDXL)."""
HEAD_DIM = 64


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One of them with its tokenizer."""

    load: Callable[[], CLIPTextModel | CLIPTextModelWithProjection]
    """Called for the first prompt: a run whose cache is complete has none."""
    words: Callable[[], Tokenizer]
    layer: Layer = "last"

    @cached_property
    def model(self) -> CLIPTextModel | CLIPTextModelWithProjection:
        """The network."""
        return self.load()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What makes its tokens."""
        return self.words()

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """B M D, and B P if the model has a projection."""
        device = next(self.model.parameters()).device
        out: Any = self.model(self.tokenizer(captions).to(device), output_hidden_states=self.layer == "penultimate")
        tokens = out.last_hidden_state if self.layer == "last" else out.hidden_states[-2]
        return tokens, getattr(out, "text_embeds", None)


@dataclass(frozen=True, kw_only=True)
class ClipTextEncoder:
    """All CLIPs of a base: their embeddings side by side, pooled as the last one has it."""

    clips: tuple[Clip, ...]
    identity: str
    tokens: int = WINDOW

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Text:
        """Embeddings of the captions, float32."""
        encoded = [clip(captions) for clip in self.clips]
        pooled = encoded[-1][1]
        return Text(
            context=torch.cat([tokens for tokens, _ in encoded], dim=-1).float(),
            pooled=None if pooled is None else pooled.float(),
        )

    def words_lost(self, caption: str) -> int:
        """Words at the caption's end that not all encoders see."""
        return words_beyond(caption, lambda text: all(clip.tokenizer.fits(text) for clip in self.clips))

    def modules(self) -> tuple[nn.Module, ...]:
        """What has weights."""
        return tuple(clip.model for clip in self.clips)


def build(tensors: Mapping[str, Tensor], *, activation: str, name: str) -> CLIPTextModel | CLIPTextModelWithProjection:
    """The model of weights under transformers' names; its sizes are read from their shapes.

    `activation`: "quick_gelu" for OpenAI's CLIP-L, "gelu" for the OpenCLIP models.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    bare = {key.removeprefix("text_model."): value for key, value in tensors.items() if "position_ids" not in key}
    try:
        vocabulary, width = bare["embeddings.token_embedding.weight"].shape
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=bare["encoder.layers.0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=1 + max(int(key.split(".")[2]) for key in bare if key.startswith("encoder.layers.")),
            num_attention_heads=max(1, width // HEAD_DIM),
            max_position_embeddings=bare["embeddings.position_embedding.weight"].shape[0],
            hidden_act=activation,
            projection_dim=bare["text_projection.weight"].shape[0] if "text_projection.weight" in bare else width,
            bos_token_id=START,
            eos_token_id=END,
        )
    except LookupError as error:
        raise CheckpointError(f"The text encoder in {name} lacks {error}; a CLIP text model was expected.") from error
    projects = "text_projection.weight" in bare
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config) if projects else CLIPTextModel(config)
    short = {key: key.removeprefix("text_model.") for key in model.state_dict()}
    named = {key: bare[name].float() for key, name in short.items() if name in bare}
    check_strictly(model, named, name=f"{name} (text encoder)")
    model.load_state_dict(named, assign=True)
    rebuild_position_ids(model)
    return model.eval().requires_grad_(False)


def from_open_clip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """OpenCLIP's weights below a prefix, under transformers' names; diffusers knows the two."""
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    width = tensors[f"{prefix}token_embedding.weight"].shape[1]
    # It reads the width from a model's configuration where the weights have no projection.
    like = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    return convert_open_clip_checkpoint(like, dict(tensors), prefix=prefix)


def rebuild_position_ids(model: nn.Module) -> None:
    """Buffers that no file holds."""
    for module in model.modules():
        ids = getattr(module, "position_ids", None)
        if isinstance(ids, Tensor):
            module.register_buffer("position_ids", torch.arange(ids.shape[-1])[None], persistent=False)
