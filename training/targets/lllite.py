"""ControlNet-LLLite as a target: small networks before the attention's projections in the UNet's encoder and middle.

The UNet itself stays as it is, and so does its file: while it computes, hooks on its projections add what the small
networks say to their inputs. Gradients pass through the whole frozen UNet, so a step keeps more activations than one
for a ControlNet, and has far fewer weights to move. What is written is kohya-ss/sd-scripts' layout.

Shapes: B pairs, L tokens, D width of a layer's input, C h w latent. Hints are B 3 8h 8w in [0, 1].
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...cn_core.errors import FamilyMismatchError
from ...cn_core.files import checkpoint
from ...cn_core.files.detect import describe_foreign
from ...cn_core.files.lllite import is_lllite, read_lllite
from ...cn_core.networks.attention import SpatialTransformer
from ...cn_core.networks.layers import Downsample
from ...cn_core.networks.lllite import LLLite, LLLiteConfig, LLLiteModule, Place
from ...cn_core.networks.unet import UNet
from ..bases.base import Base
from ..config import OptimizerConfig, TargetConfig
from ..errors import ConfigError
from ..samples import Batch
from . import initial, precision
from .precision import Autocast, autocast_of
from .target import ParameterGroup

PROJECTIONS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q")
EMBEDDING = 32
"""Channels of what a module makes of the hint, as in kohya's recipe; half of them inside."""
KERNELS = ((4, 2), (4, 4), (4, 4, 2), (4, 4, 4))
"""Of the convolutions over the hint, for tokens of 8, 16, 32 and 64 pixels; the first three are kohya's."""


class LLLiteNetwork(nn.Module):
    """Prediction as one call."""

    def __init__(self, network: LLLite) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, timesteps: Tensor, batch: Batch, unet: UNet, autocast: Autocast) -> Tensor:
        """eps or v, B C h w."""
        with autocast():
            embeddings = self.network.encode(batch.hint)
            with acting(self.network, unet, embeddings, autocast):
                return precision.predict(unet, noisy, timesteps, batch)


@contextmanager
def acting(network: LLLite, unet: UNet, embeddings: Sequence[Tensor], autocast: Autocast) -> Generator[None]:
    """The modules in their places as long as this lasts."""
    handles = [
        unet.get_submodule(place.key).register_forward_pre_hook(partial(changed, network, place, embedding, autocast))
        for place, embedding in zip(network.places, embeddings, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def changed(
    network: LLLite, place: Place, embedding: Tensor, autocast: Autocast, _: nn.Module, inputs: tuple[Any, ...]
) -> Tensor:
    """What a projection gets instead of its input, B L D."""
    (x,) = inputs
    height, width = embedding.shape[-2:]
    with autocast():
        return x + network(place, x, embedding, (height, width)).to(x.dtype)


class LLLiteTarget:
    """See `Target`."""

    def __init__(self, module: LLLiteNetwork, optimizer: OptimizerConfig) -> None:
        self.module = module
        self.optimizer = optimizer

    def begin(self, step: int) -> None:
        """Nothing depends on the step."""

    def predict(self, module: nn.Module, unet: UNet, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """eps or v, B C h w."""
        return module(noisy, timesteps, batch, unet, autocast_of(noisy.device))

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """One."""
        parameters = tuple(self.module.parameters())
        return [ParameterGroup(name="lllite", parameters=parameters, learning_rate=self.optimizer.learning_rate)]

    def tensors(self, weights: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """kohya's names are the network's own."""
        return {name.removeprefix("network."): value for name, value in weights.items()}

    def extra_files(self, _weights: Mapping[str, Tensor], _done: int, /) -> Mapping[str, Mapping[str, Tensor]]:
        """None."""
        return {}


def make(base: Base, config: TargetConfig, optimizer: OptimizerConfig, seed: int) -> LLLiteTarget:
    """Modules that add nothing yet, or those of a file."""
    with initial.fresh(seed):
        network = LLLite(places(base.unet, config.rank)) if config.init == "base" else loaded(base, config)
        if config.init == "base":
            for module in network.modules():
                if isinstance(module, LLLiteModule):
                    for parameter in module.up.parameters():
                        nn.init.zeros_(parameter)
        return LLLiteTarget(LLLiteNetwork(network.train().requires_grad_(True)), optimizer)


def loaded(base: Base, config: TargetConfig) -> LLLite:
    """Of a file for the same UNet; its rank counts."""
    path = Path(config.init).expanduser()
    tensors = checkpoint.read(path).tensors
    if not is_lllite(tensors):
        raise ConfigError(
            f"target.init must be a ControlNet-LLLite's file here; {path.name} is {describe_foreign(tensors)}."
        )
    network = LLLite(read_lllite(tensors, name=path.name).configs)
    checkpoint.load_strictly(network, tensors, name=path.name)
    own = {place: one.width for place, one in places(base.unet, config.rank).items()}
    if any(own.get(place) != one.width for place, one in network.configs.items()):
        raise FamilyMismatchError(f"{path.name} is for another family than the base {base.name}, {base.family}.")
    return network.float()


def places(unet: UNet, rank: int) -> dict[Place, LLLiteConfig]:
    """Every projection that gets a module, and the module's sizes."""
    found: dict[Place, LLLiteConfig] = {}
    level = 0
    blocks = [("input", number, block) for number, block in enumerate(unet.input_blocks)]
    for kind, number, block in (*blocks, ("middle", 0, unet.middle_block)):
        level += any(isinstance(layer, Downsample) for layer in block.children())
        for layer in block.children():
            if isinstance(layer, SpatialTransformer):
                width = layer.norm.get_parameter("weight").shape[0]
                for depth in range(len(layer.transformer_blocks)):
                    for projection in PROJECTIONS:
                        place = Place(block=kind, number=number, depth=depth, projection=projection)
                        found[place] = sizes(width, rank, level)
    return found


def sizes(width: int, rank: int, level: int) -> LLLiteConfig:
    """Of a module at a level of the UNet, 0 being the latent's own size."""
    kernels = KERNELS[min(level, len(KERNELS) - 1)]
    channels = (*(EMBEDDING // 2 for _ in kernels[:-1]), EMBEDDING)
    return LLLiteConfig(width=width, inner=rank, channels=channels, kernels=kernels)
