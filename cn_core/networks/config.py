"""`UNetConfig`: the shape of a Stable Diffusion UNet, and of the ControlNet that copies its encoder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The numbers that fix every layer; names follow the LDM code base. Checked once, here."""

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    """Channels at the highest resolution; level i has model_channels * channel_mult[i]."""
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks per level of the encoder; the decoder has one more."""
    transformer_depth: tuple[int, ...] = (1, 1, 1, 0)
    """Transformer blocks after each residual block of a level; 0 means no attention at that level."""
    transformer_depth_middle: int = 1
    context_dim: int = 768
    """Width of the text tokens."""
    adm_in_channels: int | None = None
    """Width of the vector y (pooled text and sizes), SDXL only."""
    use_linear_in_transformer: bool = False
    """Linear instead of 1x1 convolutions around the transformer blocks (SD 2.x, SDXL)."""
    num_heads: int | None = None
    """Attention heads (SD 1.x: 8). None: as many as fit `head_dim`."""
    head_dim: int = 64

    def __post_init__(self) -> None:
        levels = {len(self.channel_mult), len(self.num_res_blocks), len(self.transformer_depth)}
        if len(levels) != 1:
            raise ValueError(
                "channel_mult, num_res_blocks and transformer_depth need one entry per level, got "
                f"{self.channel_mult}, {self.num_res_blocks}, {self.transformer_depth}."
            )
        if self.model_channels % 32:
            raise ValueError(f"model_channels must be a multiple of 32 (group normalisation): {self.model_channels}.")
        attended = {self.channels(level) for level, depth in enumerate(self.transformer_depth) if depth}
        for channels in (*attended, self.middle_channels):
            if channels % self.heads(channels):
                raise ValueError(f"{channels} channels do not divide into {self.heads(channels)} attention heads.")

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.channel_mult)

    @property
    def time_embed_dim(self) -> int:
        """Width of the timestep embedding after its two layers."""
        return 4 * self.model_channels

    @property
    def middle_channels(self) -> int:
        """Channels of the middle block."""
        return self.channels(self.levels - 1)

    def channels(self, level: int) -> int:
        """Channels at a level, 0 being the highest resolution."""
        return self.model_channels * self.channel_mult[level]

    def heads(self, channels: int) -> int:
        """Attention heads for features of this width."""
        return self.num_heads if self.num_heads is not None else max(channels // self.head_dim, 1)

    def skip_channels(self) -> list[int]:
        """Channels of each skip connection, in the order of the input blocks."""
        skips = [self.model_channels]
        for level, blocks in enumerate(self.num_res_blocks):
            skips += [self.channels(level)] * (blocks + (level < self.levels - 1))
        return skips


SD1 = UNetConfig(num_heads=8)
SD2 = UNetConfig(context_dim=1024, use_linear_in_transformer=True)
SDXL = UNetConfig(
    channel_mult=(1, 2, 4),
    num_res_blocks=(2, 2, 2),
    transformer_depth=(0, 2, 10),
    transformer_depth_middle=10,
    context_dim=2048,
    adm_in_channels=2816,
    use_linear_in_transformer=True,
)
TINY = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=(2, 2),
    transformer_depth=(0, 1),
    context_dim=64,
)
"""The embedded base."""
