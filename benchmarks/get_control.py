"""How long does one `get_control` take, ours against the host's, for the same network?

Weights and latents are random: neither changes the amount of work. Networks that would take too long at their public
width are narrow; there the fixed costs of a call weigh more than they do in use.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy_in_process import make_importable
from comfy_server import CHECKOUT, Installation
from results import write_section
from timing import THREADS, Comparison, compare, seconds
from torch import Tensor

base_directory = make_importable(Installation.from_environment())
sys.path.append(str(CHECKOUT / "tests" / "lib"))

import comfy.cldm.cldm  # noqa: E402  only now importable
import comfy.controlnet  # noqa: E402
import comfy.ldm.flux.controlnet  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_detection  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.supported_models_base  # noqa: E402
import folder_paths  # noqa: E402
from controlnet_kit.cn_core.files.detect import detect  # noqa: E402
from controlnet_kit.cn_core.networks.backend import Backend  # noqa: E402
from controlnet_kit.cn_core.networks.config import SD1, UNetConfig  # noqa: E402
from controlnet_kit.cn_core.networks.t2i_adapter import T2IAdapterConfig  # noqa: E402
from controlnet_kit.cn_core.networks.unet import UNet  # noqa: E402
from controlnet_kit.cn_core.networks.union import UnionControlNet  # noqa: E402
from controlnet_kit.nodes.control import KitControl, as_kit  # noqa: E402
from controlnet_kit.nodes.host import host_backend  # noqa: E402
from controlnet_kit.nodes.load import Request, load  # noqa: E402
from controlnet_kit.nodes.sources.network import build_network_source  # noqa: E402
from random_adapters import adapter_tensors  # noqa: E402
from random_loras import control_lora_tensors  # noqa: E402
from random_models import SHAPES, Tensors, control_tensors, controlnet_file, host_model, randomise_  # noqa: E402

ROWS = 2
"""A positive and a negative prompt in one batch."""
FLUX: dict[str, Any] = {
    "image_model": "flux",
    **{"in_channels": 16, "out_channels": 16, "patch_size": 2, "hidden_size": 512, "num_heads": 4},
    **{"vec_in_dim": 64, "context_in_dim": 64, "mlp_ratio": 4.0, "depth": 4, "depth_single_blocks": 2},
    **{"axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": []},
}
"""Of InstantX's shape, a sixth as wide."""
UNION = UNetConfig(
    channel_mult=(1, 2),
    num_res_blocks=(1, 1),
    transformer_depth=(0, 2),
    context_dim=64,
    adm_in_channels=32,
    use_linear_in_transformer=True,
)
"""As wide as the public ones, which the host's class takes for granted, and less deep."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One network as our control and as the host's, and what to ask them with."""

    name: str
    ours: Any
    core: Any
    model: comfy.model_base.BaseModel
    cond: Tensors
    latents: tuple[int, ...]
    pairs: int
    channels: int = 4
    vae: Any = None


def empty_model(host: type[comfy.supported_models_base.BASE], config: dict[str, Any]) -> comfy.model_base.BaseModel:
    """The host's model without memory: a control asks for its schedule, its configuration and its dtype only."""
    supported = host(config)
    supported.set_inference_dtype(torch.float32, None)
    return supported.get_model({}, device=torch.device("meta"))


def unet_shape(config: UNetConfig) -> dict[str, Any]:
    """In the host's words."""
    return comfy.model_detection.detect_unet_config(dict(UNet(config, Backend(device="meta")).state_dict()), "")


def tokens(width: int, **more: int) -> Tensors:
    """77 text tokens of this width, and further vectors."""
    return {"c_crossattn": torch.randn(ROWS, 77, width)} | {
        name: torch.randn(ROWS, size) for name, size in more.items()
    }


def loaded(tensors: Tensors) -> dict[str, Any]:
    """A file with these weights, by our loader and by the host's."""
    name = controlnet_file(tensors, "random.safetensors")
    path = Path(folder_paths.get_full_path_or_raise("controlnet", name))
    return {"ours": load(path, Request()), "core": comfy.controlnet.load_controlnet(str(path))}


def sd15() -> Family:
    """At its full width, in half precision as most files are shared."""
    return Family(
        name="SD 1.5, full width",
        **loaded(control_tensors(SD1, dtype=torch.float16)),
        model=empty_model(comfy.supported_models.SD15, unet_shape(SD1)),
        cond=tokens(SD1.context_dim),
        latents=(32, 64),
        pairs=5,
    )


def sdxl() -> Family:
    """A fifth as wide and two transformer blocks where the public ones have ten."""
    shape = SHAPES["SDXL"]
    return Family(
        name="SDXL, narrow",
        **loaded(control_tensors(shape.config, dtype=torch.float16)),
        model=empty_model(shape.host, unet_shape(shape.config)),
        cond=tokens(shape.config.context_dim, y=shape.config.adm_in_channels or 0),
        latents=(64,),
        pairs=15,
    )


def union() -> Family:
    """The host's loader takes only the full size, so both are built from their classes."""
    backend = host_backend(comfy.ops.manual_cast, torch.float16, torch.device("cpu"))
    network = randomise_(UnionControlNet(UNION, backend, control_types=6), 1)
    tensors, device = dict(network.state_dict()), comfy.model_management.get_torch_device()
    theirs = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        hint_channels=3,
        model_channels=UNION.model_channels,
        channel_mult=UNION.channel_mult,
        num_res_blocks=list(UNION.num_res_blocks),
        transformer_depth=list(UNION.transformer_depth),  # pyright: ignore[reportArgumentType]
        transformer_depth_middle=UNION.transformer_depth_middle,
        context_dim=UNION.context_dim,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        legacy=False,
        num_head_channels=UNION.head_dim,
        num_classes="sequential",
        adm_in_channels=UNION.adm_in_channels,
        union_controlnet_num_control_type=6,
        dtype=torch.float16,
        operations=comfy.ops.manual_cast,
    )
    theirs.load_state_dict(tensors)
    core = comfy.controlnet.ControlNet(theirs, load_device=device, manual_cast_dtype=torch.float32)
    detected = detect(tensors)
    if detected is None:
        raise RuntimeError("The union network is not recognised.")
    ours = KitControl(build_network_source(tensors, detected, name="union.safetensors"))
    for control in (ours, core):
        control.set_extra_arg("control_type", [3])
    return Family(
        name="Union, less deep",
        ours=ours,
        core=core,
        model=empty_model(comfy.supported_models.SDXL, unet_shape(UNION)),
        cond=tokens(64, y=32),
        latents=(32,),
        pairs=9,
    )


def control_lora() -> Family:
    """Of rank 32 over a narrow SDXL model."""
    shape = SHAPES["SDXL"]
    return Family(
        name="Control-LoRA for SDXL, narrow",
        **loaded(control_lora_tensors(shape.config, rank=32, dtype=torch.float16)),
        model=host_model(shape).model,
        cond=tokens(shape.config.context_dim, y=shape.config.adm_in_channels or 0),
        latents=(64,),
        pairs=15,
    )


def t2i_adapter() -> Family:
    """At its full width: a step only hands out copies."""
    return Family(
        name="T2I-Adapter, full width",
        **loaded(adapter_tensors(T2IAdapterConfig())),
        model=empty_model(comfy.supported_models.SD15, unet_shape(SD1)),
        cond=tokens(768),
        latents=(64,),
        pairs=99,
    )


def flux() -> Family:
    """Run by the host's own code on either side; takes its hint as a latent."""
    network = comfy.ldm.flux.controlnet.ControlNetFlux(
        latent_input=True, dtype=torch.float32, operations=comfy.ops.manual_cast, **FLUX
    )
    core = comfy.controlnet.ControlNet(
        randomise_(network, 1),
        compression_ratio=1,
        latent_format=comfy.latent_formats.Flux(),
        load_device=comfy.model_management.get_torch_device(),
        extra_conds=["y", "guidance"],
    )
    return Family(
        name="Flux, narrow",
        ours=as_kit(core),
        core=core,
        model=empty_model(comfy.supported_models.Flux, FLUX),
        cond=tokens(64, y=64),
        latents=(64,),
        pairs=9,
        channels=16,
        vae=PlainEncoder(),
    )


class PlainEncoder:
    """Stands for a VAE: 16 channels of a hint's averages."""

    def encode(self, pixel_samples: Tensor) -> Tensor:
        """B H W C -> B 16 h w."""
        return (
            torch.nn.functional.avg_pool2d(pixel_samples.movedim(-1, 1), 8)
            .mean(dim=1, keepdim=True)
            .expand(-1, 16, -1, -1)
        )

    def spacial_compression_encode(self) -> int:
        """Pixels for each latent position."""
        return 8


def prepared(family: Family, control: Any, hint: Tensor) -> Any:
    """A copy with its hint set and its run begun, as the host's sampler leaves it."""
    control, model = control.copy().set_cond_hint(hint, vae=family.vae), family.model
    comfy.model_management.load_models_gpu(control.get_models())
    control.pre_run(model, model.model_sampling.percent_to_sigma)
    return control


def on_device(tensors: Tensors) -> Tensors:
    """Where the host computes."""
    device = comfy.model_management.get_torch_device()
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def measure(family: Family, latent: int) -> str:
    """A line of the table: both timed in turns, after one call each that encodes hints and warms up."""
    device = comfy.model_management.get_torch_device()
    hint, cond = torch.rand(1, 3, latent * 8, latent * 8), on_device(family.cond)
    x = torch.randn(ROWS, family.channels, latent, latent, device=device)
    sigmas = torch.full((ROWS,), 0.8 if family.channels == 16 else 3.0, device=device)

    def calls(control: Any) -> Callable[[], object]:
        return lambda: control.get_control(x, sigmas, dict(cond), ROWS, {})

    ours, core = prepared(family, family.ours, hint), prepared(family, family.core, hint)
    times = compare(calls(ours), calls(core), family.pairs)
    share = hint_share(core, calls(core))
    for control in (ours, core):
        control.cleanup()
    return row(f"{family.name}, {latent}x{latent}", times, share)


def row(name: str, times: Comparison, hint: str) -> str:
    """One line."""
    ours, core = times.medians
    return (
        f"| {name} | {len(times.pairs)} | {1000 * ours:.1f} ms | {1000 * core:.1f} ms | **{times.wall:.3f}** "
        f"| {times.cpu:.3f} | {hint} |"
    )


def hint_share(core: Any, call: Callable[[], object]) -> str:
    """The part of a call that the host spends on encoding the hint, again and for every row; "-" where it does not."""
    network = getattr(core, "control_model", None)
    if not isinstance(network, comfy.cldm.cldm.ControlNet):
        return "-"
    marks: list[float] = []
    hooks = (
        network.input_hint_block.register_forward_pre_hook(lambda *_: marks.append(-time.perf_counter())),
        network.input_hint_block.register_forward_hook(lambda *_: marks.append(time.perf_counter())),
    )
    whole = sum(seconds(call).wall for _ in range(3))
    for hook in hooks:
        hook.remove()
    return f"{sum(marks) / whole:.0%}"


FAMILIES = {build.__name__: build for build in (sd15, sdxl, union, control_lora, t2i_adapter, flux)}


def main() -> None:
    """Measure and write the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=[[], *FAMILIES], help="none: all, and the results are written")
    chosen = parser.parse_args().families
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    rows: list[str] = []
    with torch.inference_mode():
        for name in chosen or FAMILIES:
            family = FAMILIES[name]()
            rows += [measure(family, latent) for latent in family.latents]
            print(*rows[-len(family.latents) :], sep="\n", flush=True)
    if chosen:
        return
    write_section(
        "get_control: ours against ComfyUI's own",
        [
            f"Networks with random weights, {ROWS} rows (CFG), one picture as hint, in one process, in turns. The ratio",
            "is the median over the pairs of ours / core: below 1 we are faster. Of UNets' ControlNets the host encodes",
            "the hint at every call and for every row; we encode it once for a run, outside of the times here.",
            "",
            "| network, latent | pairs | ours | core | ours / core | in CPU time | of the host's, hint encoder |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ],
    )


if __name__ == "__main__":
    main()
