"""The UNet's weights: LDM key -> diffusers key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...networks.config import UNetConfig

Pair = tuple[str, str]
"""A module's name in LDM's files and in diffusers' files."""

RESIDUAL_BLOCK: tuple[Pair, ...] = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
)
SHORTCUT: Pair = ("skip_connection", "conv_shortcut")
"""Only in blocks whose input and output differ in width."""
TRANSFORMER = ("norm", "proj_in", "proj_out")
TRANSFORMER_BLOCK = (
    *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"),
    *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "norm1", "norm2", "norm3"),
)
"""Inside the transformer both sides use the same names."""
BIASLESS = ("to_q", "to_k", "to_v")
TIME_EMBEDDING: tuple[Pair, ...] = (
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
)
LABEL_EMBEDDING: tuple[Pair, ...] = (
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
)
"""The embedding of y, in families that have it (SDXL)."""
OUT: tuple[Pair, ...] = (("out.0", "conv_norm_out"), ("out.2", "conv_out"))


def unet_keys(config: UNetConfig) -> dict[str, str]:
    """Every weight of `networks.unet.UNet`: LDM key -> diffusers `UNet2DConditionModel` key."""
    return weights([*encoder(config), *decoder(config), *OUT])


def weights(pairs: Iterable[Pair]) -> dict[str, str]:
    """Module names -> the keys of their weights and, where they have one, biases."""
    return {
        f"{ldm}.{parameter}": f"{diffusers}.{parameter}"
        for ldm, diffusers in pairs
        for parameter in (("weight",) if ldm.endswith(BIASLESS) else ("weight", "bias"))
    }


def below(ldm: str, diffusers: str, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs inside a module of these names."""
    return ((f"{ldm}.{ours}", f"{diffusers}.{theirs}") for ours, theirs in pairs)


def residual_block(*, widens: bool) -> tuple[Pair, ...]:
    """A residual block's modules; `widens` when its input has another width than its output."""
    return (*RESIDUAL_BLOCK, SHORTCUT) if widens else RESIDUAL_BLOCK


def transformer(depth: int) -> list[Pair]:
    """The modules of an attention layer of `depth` blocks."""
    blocks = [f"transformer_blocks.{index}.{name}" for index in range(depth) for name in TRANSFORMER_BLOCK]
    return [(name, name) for name in (*TRANSFORMER, *blocks)]


def encoder(config: UNetConfig) -> Iterator[Pair]:
    """What the UNet and its ControlNet share: embeddings, input blocks, middle block."""
    yield from TIME_EMBEDDING
    if config.adm_in_channels is not None:
        yield from LABEL_EMBEDDING
    yield "input_blocks.0.0", "conv_in"
    block, channels = 1, config.model_channels
    for level, (count, depth) in enumerate(zip(config.num_res_blocks, config.transformer_depth, strict=True)):
        ours, theirs = "input_blocks.{}.{}", f"down_blocks.{level}"
        for index in range(count):
            widens = channels != config.channels(level)
            channels = config.channels(level)
            yield from below(ours.format(block, 0), f"{theirs}.resnets.{index}", residual_block(widens=widens))
            if depth:
                yield from below(ours.format(block, 1), f"{theirs}.attentions.{index}", transformer(depth))
            block += 1
        if level < config.levels - 1:
            yield f"{ours.format(block, 0)}.op", f"{theirs}.downsamplers.0.conv"
            block += 1
    yield from below("middle_block.0", "mid_block.resnets.0", RESIDUAL_BLOCK)
    yield from below("middle_block.1", "mid_block.attentions.0", transformer(config.transformer_depth_middle))
    yield from below("middle_block.2", "mid_block.resnets.1", RESIDUAL_BLOCK)


def decoder(config: UNetConfig) -> Iterator[Pair]:
    """The output blocks. Every residual block here takes a skip, so all of them have a shortcut."""
    block = 0
    for up, level in enumerate(reversed(range(config.levels))):
        depth, last = config.transformer_depth[level], config.num_res_blocks[level]
        ours, theirs = "output_blocks.{}.{}", f"up_blocks.{up}"
        for index in range(last + 1):
            yield from below(ours.format(block, 0), f"{theirs}.resnets.{index}", residual_block(widens=True))
            if depth:
                yield from below(ours.format(block, 1), f"{theirs}.attentions.{index}", transformer(depth))
            if level and index == last:
                yield f"{ours.format(block, 2 if depth else 1)}.conv", f"{theirs}.upsamplers.0.conv"
            block += 1
