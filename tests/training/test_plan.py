"""Costs against those of ../shared/docs/training.md, and what is chosen for a card."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import SD1, SD2, SDXL, UNetConfig
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.training import compute, flags, hardware
from controlnet_kit.training.bases import tiny
from controlnet_kit.training.bases.base import Base, Codec, TextEncoder
from controlnet_kit.training.bases.kl import KLCodec
from controlnet_kit.training.config import (
    DataConfig,
    HardwareConfig,
    OptimizerConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)
from controlnet_kit.training.planner import plan_text
from controlnet_kit.training.planner.cost import Costs, Encoding, costs, encoding, phases
from controlnet_kit.training.planner.counting import Peak
from controlnet_kit.training.planner.plan import GIB, IN_BACKWARD, Card, Plan, card, decided, least, plan
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from two_processes import two_processes

MIB = 2**20
KINDS = ("one_level", "two_levels", "control", "decoder", "both")
CPU = torch.device("cpu")
TINY = replace(SD1, model_channels=32, channel_mult=(1, 2), num_res_blocks=(1, 1), transformer_depth=(0, 1))


def base(config: UNetConfig) -> Base:
    """Of this size, without weights."""
    return Base(
        name="none",
        family="SD 1.x",
        sha256="",
        unet=UNet(config, Backend(device="meta")),
        prediction="eps",
        codec=cast("Codec", SimpleNamespace(factor=8, channels=4, modules=tuple)),
        text=cast("TextEncoder", SimpleNamespace(tokens=77)),
    )


@cache
def counted(config: UNetConfig, resolution: int, precision: Any) -> Costs:
    """With nothing decided."""
    settings = TrainConfig(data=DataConfig(resolution=resolution), hardware=HardwareConfig(precision=precision))
    return costs(settings, base(config))


def small(*, steps: int = 10, **target: Any) -> Costs:
    """For a small network, at 64 pixels."""
    settings = TrainConfig(
        target=TargetConfig(**target),
        data=DataConfig(resolution=64),
        hardware=HardwareConfig(precision="bf16"),
        run=RunConfig(steps=steps),
    )
    return costs(settings, base(TINY))


@pytest.mark.parametrize(
    ("config", "resolution", "tflop", "forward", "none", "control", "both"),
    [
        (SD1, 512, 2.265, 0.803 + 0.283, 867, 580, 230),
        (SD2, 768, 6.263, 2.149 + 0.774, 1887, 1243, 459),
        (SDXL, 1024, 20.016, 6.761 + 3.020, 6055, 3290, 909),
    ],
    ids=["SD1.5", "SD2.1", "SDXL"],
)
def test_operations_and_activations_are_those_of_the_doc(
    config: UNetConfig, resolution: int, tflop: float, forward: float, none: int, control: int, both: int
) -> None:
    found = counted(config, resolution, "fp32")
    assert found.choices["none"].tflop == pytest.approx(tflop, rel=0.02)
    assert found.forward == pytest.approx(forward, rel=0.02)
    assert found.choices["none"].activations / MIB == pytest.approx(2 * none, rel=0.02)
    # The doc checkpoints smaller blocks, and leaves out the one that is computed again.
    assert found.choices["control"].activations / MIB == pytest.approx(2 * control, rel=0.15)
    assert 2 * both * 0.5 < found.choices["both"].activations / MIB < 2 * both * 1.3
    assert found.choices["control"].tflop / tflop == pytest.approx(1.13, abs=0.03)
    assert found.choices["both"].tflop / tflop == pytest.approx(1.35, abs=0.03)


@pytest.mark.parametrize(
    ("levels", "encoder", "decoder"), [(1, range(4), range(9, 12)), (2, range(7), range(6, 12))], ids=["one", "two"]
)
def test_the_highest_levels_are_the_first_blocks_and_the_last(levels: int, encoder: range, decoder: range) -> None:
    control, unet = ControlNet(SD1, Backend(device="meta")), UNet(SD1, Backend(device="meta"))
    wanted = [control.input_hint_block, *(control.input_blocks[number] for number in encoder)]
    assert hardware.recomputable(control, levels) == wanted
    assert hardware.recomputable(unet.output_blocks, levels) == [unet.output_blocks[number] for number in decoder]
    assert set(wanted) < set(hardware.recomputable(control)) and control.middle_block in hardware.recomputable(control)


@pytest.mark.parametrize(("config", "resolution"), [(SD1, 512), (SD2, 768)], ids=["SD1.5", "SD2.1"])
def test_high_resolutions_save_more_for_fewer_operations(config: UNetConfig, resolution: int) -> None:
    found = counted(config, resolution, "fp32").choices
    one, two, decoder, both = (found[kind] for kind in ("one_level", "two_levels", "decoder", "both"))
    assert one.tflop < decoder.tflop and one.activations < decoder.activations
    assert two.tflop < 1.03 * decoder.tflop and two.activations < 0.55 * decoder.activations
    assert both.activations < two.activations


def test_autocast_keeps_trained_norms_wide_and_weights_twice() -> None:
    full, half = counted(SD1, 512, "fp32"), counted(SD1, 512, "bf16")
    assert 0.5 < half.choices["none"].activations / full.choices["none"].activations < 0.75
    assert half.choices["none"].activations / MIB == pytest.approx(966, rel=0.01), "1141 if the base's norms were wide"
    assert (full.choices["none"].casts, half.choices["none"].casts / MIB) == (0, pytest.approx(689, rel=0.01))
    assert half.trained == pytest.approx(361.3e6, rel=1e-3) and half.base == pytest.approx(859.5e6, rel=1e-3)


def planned(memory: float, batch: int = 64, **hardware: Any) -> Plan:
    """For SD1.5."""
    device = HardwareConfig(precision="bf16", memory_gb=memory, **hardware)
    settings = TrainConfig(hardware=device, run=RunConfig(batch=batch))
    return plan(settings, counted(SD1, 512, "bf16"), Card(name="card", memory=memory, tflops=100.0))


@pytest.mark.parametrize(
    ("memory", "checkpointing", "micro"), [(79, "none", 64), (24, "none", 16), (12, "control", 5), (9.5, "both", 3)]
)
def test_the_fewest_operations_that_fit(memory: float, checkpointing: str, micro: int) -> None:
    found = planned(memory)
    assert found.fits and found.chosen.total <= memory
    assert (found.config.hardware.checkpointing, found.config.hardware.micro_batch) == (checkpointing, micro)
    assert found.config == replace(
        found.config, hardware=replace(found.config.hardware, checkpointing=cast("Any", checkpointing))
    )


def test_nothing_is_counted_where_nothing_is_left_to_decide() -> None:
    settings = TrainConfig(hardware=HardwareConfig(precision="fp32", checkpointing="none", micro_batch=2))
    one = Card(name="card", memory=1.0, tflops=1.0)
    assert decided(settings, base(TINY), one) is None
    left = replace(settings, data=DataConfig(resolution=64), hardware=HardwareConfig(precision="fp32"))
    chosen = decided(left, base(TINY), replace(one, memory=100.0))
    assert chosen is not None
    found = chosen.config.hardware
    assert (found.checkpointing, found.micro_batch) == ("none", 64)


def test_parts_are_those_of_the_doc() -> None:
    one = planned(80, batch=1).chosen.memory
    doc = {"base": 1.60, "weights": 1.35, "gradients": 1.35, "optimiser": 2.69}
    assert {name: one[name] for name in doc} == pytest.approx(doc, rel=0.01)


def test_fit_changes_one_thing_after_the_other() -> None:
    found = planned(6, batch=1, fit=True)
    changed = found.config.optimizer
    assert found.fits and (changed.name, changed.in_backward, changed.clip) == ("adamw8bit", True, 0.0)
    assert (found.config.hardware.base_dtype, changed.weights) == ("auto", "fp32")
    smallest = planned(4.5, batch=1, fit=True)
    assert smallest.fits and smallest.config.optimizer.weights == "bf16"


@pytest.mark.parametrize(
    ("memory", "settings", "changed"),
    [
        (8, {}, ("adamw8bit", "auto", "fp32")),
        (6.5, {}, ("adamw8bit", "int8", "fp32")),
        (6, {}, ("adamw8bit", "int8", "bf16")),
        (5, {}, ("adamw8bit", "int8", "bf16")),
        (5.5, {"micro_batch": 1}, ("adamw8bit", "int8", "bf16")),
    ],
    ids=str,
)
def test_fit_accumulates_where_the_whole_batch_has_no_room(
    memory: float, settings: dict[str, Any], changed: tuple[str, ...]
) -> None:
    found = planned(memory, fit=True, **settings)
    optimizer, device = found.config.optimizer, found.config.hardware
    assert found.fits and not optimizer.in_backward and optimizer.clip == 1
    assert (optimizer.name, device.base_dtype, optimizer.weights) == changed and device.micro_batch < 64
    compute.check(found.config, Accelerator(cpu=True))


@pytest.mark.parametrize("batch", [1, 4])
def test_steps_in_the_backward_pass_have_the_whole_batch_at_once(batch: int) -> None:
    found = planned(6.6, batch=batch, fit=True)
    assert found.fits and found.config.optimizer.in_backward and found.config.hardware.micro_batch == batch
    compute.check(found.config, Accelerator(cpu=True))
    rungs = dict(planned(24, batch=64).ladder)
    with_all = rungs[f"{IN_BACKWARD}, with optimizer.name adamw8bit"]
    assert with_all.config.hardware.micro_batch == 64 and with_all.total > rungs["as set"].total
    assert not any(IN_BACKWARD in name for name, _ in planned(24, micro_batch=1).ladder)


def test_the_recipe_for_sdxl_can_be_made_to_fit() -> None:
    recipe = TrainConfig.from_toml(flags.recipe_file("sdxl"), {"fit": "true", "precision": "bf16"})
    for memory, fits in ((24, True), (16, True), (13, True), (8, False)):
        found = plan(recipe, counted(SDXL, 1024, "bf16"), Card(name="card", memory=memory, tflops=100.0))
        assert found.fits == fits and found.config.hardware.micro_batch == 1
        compute.check(found.config, Accelerator(cpu=True))


def test_where_nothing_fits_the_smallest_is_taken() -> None:
    assert planned(2).chosen.total == min(planned(2, checkpointing=kind).chosen.total for kind in KINDS)
    assert planned(2, fit=True).chosen.total == min(one.total for _, one in planned(2, fit=True).ladder)
    assert (planned(2).config.hardware.micro_batch, planned(2).config.hardware.checkpointing) == (1, "both")


def test_what_does_not_fit_says_what_would() -> None:
    found = planned(6, batch=1)
    said = plan_text.text(found, "SD 1.x")
    assert not found.fits and found.config.optimizer == OptimizerConfig()
    assert "Set hardware.fit to true, or change what --dry-run lists down to: optimizer.in_backward" in said
    assert "whatever is changed" in plan_text.text(planned(2, batch=1), "SD 1.x")


def test_the_text_has_the_figures() -> None:
    said = plan_text.text(planned(60), "SD 1.x")
    for words in ("2.265 TFLOP", "64 pairs", "2 micro-batch(es) of 32", "10000 steps", "38.84", "adamw8bit"):
        assert words in said
    assert planned(80).hours == pytest.approx((2.265 * 64 * 1e4 + 20 * 4 * 20 * 2 * 1.087) / 40 / 3600, rel=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "control_lora", "rank": 4},
        {"kind": "lllite", "rank": 4},
        {"kind": "input_channels", "hint_encoder": "vae"},
        {"unlock_decoder_at": 5},
        {"links": "middle", "reconnect_at": 5},
    ],
    ids=str,
)
def test_every_target_is_counted(settings: dict[str, Any]) -> None:
    found = small(**settings)
    assert found.choices["none"].tflop > found.forward > 0 and found.trained > 0
    assert found.choices["both"].tflop > found.choices["none"].tflop


def test_a_run_costs_what_its_phases_cost_and_takes_the_worst_ones_memory() -> None:
    first, last, both = small(links="shallow"), small(), small(links="shallow", reconnect_at=7)
    for kind, cost in both.choices.items():
        before, after = first.choices[kind], last.choices[kind]
        assert before.tflop < after.tflop
        assert cost.tflop == pytest.approx(0.7 * before.tflop + 0.3 * after.tflop)
        assert (cost.activations, cost.casts) == (after.activations, after.casts)
    assert both.forward == pytest.approx(0.7 * first.forward + 0.3 * last.forward)


def test_three_phases() -> None:
    settings = TargetConfig(links="middle", reconnect_at=2, unlock_decoder_at=6)
    assert phases(TrainConfig(target=settings, run=RunConfig(steps=8))) == {0: 0.25, 2: 0.5, 6: 0.25}
    assert phases(TrainConfig()) == {0: 1.0}
    together = TargetConfig(links="middle", reconnect_at=2, unlock_decoder_at=2)
    assert phases(TrainConfig(target=together, run=RunConfig(steps=8))) == {0: 0.25, 2: 0.75}


def sd_autoencoder() -> AutoencoderKL:
    """Stable Diffusion's, without weights."""
    widths = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        return AutoencoderKL.from_config({**widths, **blocks})  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(("target", "pictures"), [({}, 1), ({"hint_encoder": "vae"}, 2)], ids=str)
def test_what_no_cache_keeps_is_counted(target: dict[str, Any], pictures: int) -> None:
    codec = KLCodec(load=sd_autoencoder, identity="", scaling=0.18215)
    with torch.device("meta"):
        linear = torch.nn.Linear(768, 3072)
    text = cast("TextEncoder", SimpleNamespace(tokens=77, modules=lambda: (linear,)))
    settings = TrainConfig(target=TargetConfig(**target), data=DataConfig(cached=False))
    found = encoding(settings, replace(base(SD1), codec=codec, text=text))
    assert found.weights == pytest.approx((83.65e6 + linear.weight.numel()) * 4, rel=0.001)
    products = 2 * 77 * linear.weight.numel() / 1e12
    assert found.tflop == pytest.approx(pictures * 1.117 + products, rel=0.01)  # diffusers' encoder at 512 pixels
    plane = 128 * 512 * 512 * 4  # its widest features; a block has about five of them at a time
    assert 4 * plane < found.workspace < 6 * plane and found.at_once == 4
    cached = replace(settings, data=DataConfig())
    assert encoding(cached, replace(base(SD1), codec=codec, text=text)) == Encoding()


def test_what_no_cache_keeps_is_in_the_plan() -> None:
    own = tiny.as_base(tiny.load())
    settings = TrainConfig(data=DataConfig(resolution=64), hardware=HardwareConfig(precision="bf16"))
    live = replace(settings, data=replace(settings.data, cached=False))
    without, found = costs(settings, own), costs(live, own)
    networks = [*own.codec.modules(), *own.text.modules()]
    assert not any(one.is_meta for module in networks for one in module.parameters())
    for kind, cost in found.choices.items():
        assert cost.tflop == without.choices[kind].tflop + found.encoding.tflop > without.choices[kind].tflop
    assert found.forward == without.forward
    chosen = plan(live, found, Card(name="card", memory=9.0, tflops=1.0)).chosen
    parts, pairs = chosen.memory, chosen.config.hardware.micro_batch
    assert parts["encoders"] * GIB == sum(p.nbytes for m in networks for p in m.state_dict().values())
    assert parts["encoding"] * GIB == found.encoding.workspace * min(pairs, found.encoding.at_once) > 0


def test_the_peak_is_of_what_is_alive_at_once() -> None:
    with Peak() as peak:
        one = torch.empty(2**18, device="meta")
        for _ in range(5):
            one = one + 1
        one.view(2, -1).mul_(2)
    assert peak.bytes == 2 * 2**20


def test_auto_is_what_the_device_is_made_for() -> None:
    found = hardware.decided(TrainConfig(), CPU).hardware.precision
    has = torch.cpu.get_capabilities()
    assert found == ("bf16" if any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32")
    settings = TrainConfig(hardware=HardwareConfig(precision="bf16"))
    assert hardware.decided(settings, CPU) is settings


def test_processes_plan_with_the_least_memory_of_them() -> None:
    program = """
import torch
from accelerate import Accelerator
from controlnet_kit.training.planner.plan import least
own = Accelerator(cpu=True)
print("least", least(7.25 + own.process_index, own.device))
"""
    assert all("least 7.25" in output for output in two_processes(program))
    assert least(3.5, CPU) == 3.5


def test_this_machine_is_a_card() -> None:
    found = card(TrainConfig(hardware=HardwareConfig(precision="fp32")), CPU)
    assert found.memory > 0.5 and found.tflops > 1e-4 and found.processes == 1
    assert card(TrainConfig(hardware=HardwareConfig(precision="fp32", memory_gb=3, tflops=2)), CPU).memory == 3
    assert GIB == 2**30
