"""Ways to need less memory: what each keeps for the backward pass, and that gradients stay what they were."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from controlnet_kit.cn_core.networks.config import SD1
from controlnet_kit.cn_core.networks.layers import Block
from controlnet_kit.cn_core.networks.unet import UNet
from controlnet_kit.training import hardware, quantised
from controlnet_kit.training.events import StepDone
from controlnet_kit.training.hardware import fingerprint
from controlnet_kit.training.loop import Trainer
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import RandomSamples, configured, finished, of_kind, trainer

BATCH = RandomSamples().batch(torch.arange(2), torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.bool))
NOISY, TIMESTEPS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 900])


def moved(folder: Path, **tables: Mapping[str, Any]) -> Trainer:
    """A run whose zero convolutions are not zero any more, so that every weight has a gradient."""
    run = trainer(configured(folder, **tables))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in run.target.module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return run


def computed(run: Trainer) -> tuple[dict[str, Tensor], int]:
    """Gradients by name, and the bytes that were kept for them besides weights."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for m in (run.base.unet, run.target.module) for p in m.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with run.computation.autocast(), saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run.target.predict(run.module, run.base.unet, BATCH, NOISY, TIMESTEPS)
    out.float().square().mean().backward()
    names = (name.replace("_checkpoint_wrapped_module.", "") for name, _ in run.target.module.named_parameters())
    found = dict(zip(names, run.target.module.parameters(), strict=True))
    return {name: p.grad for name, p in found.items() if p.grad is not None}, sum(kept.values())


def difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Norm of the difference of all gradients over the norm of the wanted ones."""
    assert found.keys() == wanted.keys()
    pairs = [(found[name].float(), wanted[name].float()) for name in wanted]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    return (off / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


@pytest.mark.parametrize(
    ("kind", "most"),
    [("one_level", 0.75), ("two_levels", 0.5), ("control", 0.75), ("decoder", 0.75), ("both", 0.5)],
)
def test_recomputing_keeps_less_and_is_exact(tmp_path: Path, kind: str, most: float) -> None:
    wanted, whole = computed(moved(tmp_path))
    found, kept = computed(moved(tmp_path, hardware={"checkpointing": kind}))
    assert difference(found, wanted) == 0
    assert kept < most * whole


def test_the_hint_encoder_is_recomputed_too(tmp_path: Path) -> None:
    control = trainer(configured(tmp_path, hardware={"checkpointing": "control"})).target.module
    names = [type(child).__name__ for name, child in control.named_modules() if name.endswith("input_hint_block")]
    assert names == ["CheckpointWrapper"]


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.02), ("fp8", 0.06)])
def test_an_8_bit_base_is_near_the_whole_one_and_keeps_no_restored_weights(
    tmp_path: Path, kind: str, error: float
) -> None:
    wanted, whole = computed(moved(tmp_path))
    run = moved(tmp_path, hardware={"base_dtype": kind})
    found, kept = computed(run)
    assert 0 < difference(found, wanted) < error
    assert kept <= 1.02 * whole
    weights = sum(p.nbytes for p in run.base.unet.parameters())
    assert weights < 0.32 * sum(4 * p.numel() for p in UNet(run.base.unet.config).parameters())


@pytest.mark.parametrize("target", [{"kind": "control_lora", "rank": 4}, {"kind": "lllite"}, {"hint_encoder": "vae"}])
def test_every_target_works_on_an_8_bit_base(tmp_path: Path, target: dict[str, Any]) -> None:
    wanted, _ = computed(moved(tmp_path, target=target))
    found, _ = computed(moved(tmp_path, target=target, hardware={"base_dtype": "int8"}))
    assert 0 < difference(found, wanted) < 0.03


def test_int8_is_closer_than_fp8() -> None:
    weight = torch.randn(64, 576, generator=torch.Generator().manual_seed(0))
    errors = {}
    for kind in ("int8", "fp8"):
        numbers, scale = quantised.stored(weight, kind)
        assert numbers.element_size() == 1 and scale.shape == (64, 1)
        errors[kind] = float((numbers.float() * scale - weight).norm() / weight.norm())
    assert errors["int8"] < 0.01 < errors["fp8"] < 0.03


def test_an_8_bit_product_has_the_layers_gradient() -> None:
    for layer, x in (
        (nn.Linear(12, 8), torch.randn(2, 5, 12)),
        (nn.Conv2d(6, 8, 3, padding=1, stride=2), torch.randn(2, 6, 9, 7)),
    ):
        narrow, plain = quantised.Quantised(layer.requires_grad_(False), "int8"), x.clone().requires_grad_()
        with torch.no_grad():
            layer.weight.copy_(narrow.weight)
        x.requires_grad_()
        found, wanted = narrow(x), layer(plain)
        torch.testing.assert_close(found, wanted)
        seed = torch.randn_like(wanted)
        found.backward(seed)
        wanted.backward(seed)
        torch.testing.assert_close(x.grad, plain.grad)


def test_two_thirds_of_sd1_are_convolutions_and_all_but_little_is_stored_in_8_bits() -> None:
    with torch.device("meta"):
        unet = UNet(SD1)
    narrow = [layer.weight.numel() for _, layer in quantised.layers(unet)]
    assert sum(narrow) > 0.98 * sum(p.numel() for p in unet.parameters())


def test_the_memory_layout_of_convolutions(tmp_path: Path) -> None:
    wanted, _ = computed(moved(tmp_path))
    run = moved(tmp_path, hardware={"channels_last": True})
    found, _ = computed(run)
    assert difference(found, wanted) < 1e-5
    weight = run.target.module.get_parameter("control.input_blocks.1.0.in_layers.2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("target", "base_dtype"), [({}, "auto"), ({"kind": "control_lora", "rank": 4}, "int8")])
def test_compiled_blocks_all_have_their_graphs(tmp_path: Path, target: dict[str, Any], base_dtype: str) -> None:
    """With a backend that computes the graphs as they are: real compilation takes minutes."""
    tables = {"target": target, "hardware": {"base_dtype": base_dtype}}
    wanted, _ = computed(moved(tmp_path, **tables))
    run = moved(tmp_path, **tables)
    torch.compiler.reset()
    counters: Any = torch._dynamo.utils.counters  # pyright: ignore[reportAttributeAccessIssue]
    counters.clear()
    for module in (run.base.unet, run.target.module):
        hardware.compiled(module, backend="eager")
    found, _ = computed(run)
    assert difference(found, wanted) < 1e-5
    blocks = sum(isinstance(part, Block) for m in (run.base.unet, run.target.module) for part in m.modules())
    assert counters["stats"]["unique_graphs"] == blocks + 1 and not counters["graph_break"]


def test_gradients_are_gone_as_soon_as_they_are_used(tmp_path: Path) -> None:
    run = trainer(configured(tmp_path, optimizer={"in_backward": True, "clip": 0.0}))
    alive: list[int] = []
    for parameter in run.target.module.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(p.grad is not None for p in run.target.module.parameters()))
        )
    finished(run)
    assert max(alive) <= 1


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [("adamw", "fp32", 8.0), ("adamw8bit", "fp32", 2.1), ("adamw", "bf16", 4.0), ("adamw8bit", "bf16", 2.1)],
)
def test_optimiser_states(tmp_path: Path, name: str, weights: str, size: float) -> None:
    """torchao compiles its step; it computes the same without, and a test has no minute for that."""
    optimizer = {"name": name, "weights": weights, "learning_rate": 1e-3}
    with torch.compiler.set_stance("force_eager"):
        run = trainer(configured(tmp_path / "a", optimizer=optimizer, hardware={"precision": "bf16"}))
        found = [step.loss for step in of_kind(finished(run), StepDone)]
    plain = [step.loss for step in of_kind(finished(trainer(configured(tmp_path / "b"))), StepDone)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(plain), atol=3e-3, rtol=3e-3)
    count = sum(p.numel() for p in run.target.module.parameters())
    states = [v for o in run.optimizers.all for state in o.state_dict()["state"].values() for v in state.values()]
    kept = sum(nbytes(value) for value in states if isinstance(value, Tensor) and value.ndim)
    assert kept / count == pytest.approx(size, abs=0.15)


def nbytes(tensor: Tensor) -> int:
    """Of a tensor or of the parts of torchao's."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return tensor.nbytes
    return sum(getattr(tensor, name).nbytes for name in flatten()[0])


def test_bf16_weights_move_although_an_update_is_less_than_their_spacing(tmp_path: Path) -> None:
    optimizer = {"weights": "bf16", "learning_rate": 1e-5, "clip": 0.0, "weight_decay": 0.0}
    with torch.compiler.set_stance("force_eager"):
        run = trainer(configured(tmp_path, optimizer=optimizer, hardware={"precision": "bf16"}, run={"steps": 6}))
        name = "control.input_blocks.1.0.in_layers.2.weight"
        before = run.target.module.get_parameter(name).detach().clone()
        finished(run)
    moved_by = run.target.module.get_parameter(name).detach().float() - before.float()
    # Adam's first steps are of the learning rate's size; six of them are far below most spacings.
    assert (moved_by != 0).float().mean() > 0.02
    assert 2e-6 < moved_by.abs().mean() < 1e-4


class Casts(TorchDispatchMode):
    """Counts how often a weight is cast to another type."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and isinstance(args[0], nn.Parameter)
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_for_all_micro_batches(tmp_path: Path) -> None:
    found: list[tuple[int, list[float]]] = []
    for micro in (0, 1):
        hardware_tables = {"precision": "bf16", "micro_batch": micro}
        run = trainer(configured(tmp_path / str(micro), hardware=hardware_tables, run={"steps": 2}))
        with Casts() as casts:
            losses = [step.loss for step in of_kind(finished(run), StepDone)]
        found.append((casts.count, losses))
    assert found[0][0] == found[1][0] > 100
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-3)


def test_the_fingerprint_covers_an_8_bit_base(tmp_path: Path) -> None:
    run = trainer(configured(tmp_path, hardware={"base_dtype": "int8"}))
    before = fingerprint(run.base.unet)
    narrow = next(layer for layer in run.base.unet.modules() if isinstance(layer, quantised.Quantised))
    narrow.numbers.flatten()[0] += 1
    assert fingerprint(run.base.unet) != before


FAULTS = """
import resource, sys
sys.path[:0] = {paths!r}
import conftest, torch
from controlnet_kit.training.hardware import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(2**26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
keep_freed_memory()
print(min(faults() for _ in range(4)) < given_back / 10)  # the first ones may still take fresh memory
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_kept() -> None:
    tests = Path(__file__).resolve().parents[1]
    program = FAULTS.format(paths=[str(tests), str(tests.parent / "scripts")])
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True"]
