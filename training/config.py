"""`TrainConfig`: everything that a training run depends on, one frozen dataclass for each table of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..cn_core.files.metadata import RULES
from .combinations import check_base, check_places, check_steps, check_target, check_together
from .errors import ConfigError
from .tables import build, check, kinds, nearest, option, parse, parsed, toml

Value = bool | int | float | str
LICENCE = RULES["licence"]


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The frozen model."""

    path: str = option(
        "tiny", '"tiny" (embedded), a single-file checkpoint, a diffusers folder, or hub:NAME or hub:NAME@REVISION'
    )
    vae: str = option("", "another VAE: a file or folder; empty: the base's own")
    text_encoder: str = option("", "another text encoder: a folder; empty: the base's own")
    tokenizer: str = option("", "folder with the tokenizer's files; empty: those of an installed package")
    prediction: Literal["auto", "eps", "v"] = option("auto", "what the UNet predicts; auto: by its family")

    def __post_init__(self) -> None:
        check(self, "base")
        check_base(self)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The pairs of pictures and hints."""

    path: str = option("", "folder, file or name of the data set")
    format: Literal["auto", "pairs", "fill50k", "imagefolder", "huggingface", "webdataset", "tiny-world"] = option(
        "auto", "how the data set is laid out"
    )
    count: int = option(0, "use only this many pairs; 0: all (tiny-world: 30000)", low=0)
    hints: str = option("given", '"given" with the pairs, or the name of a preprocessor that makes them: "canny"')
    preprocessor_params: Mapping[str, Value] = option({}, "settings of the preprocessor")
    randomise: Mapping[str, tuple[float, float]] = option(
        {}, "settings drawn anew for each picture: name = [low, high]"
    )
    condition: str = option(
        "", "what the hints show: the preprocessor that makes such ones, or free text; empty: as hints or annotate say"
    )
    quarantine: str = option("", "file with the names of pairs to leave out, such as `lint` writes")
    captions: Literal["given", "empty", "default", "automatic"] = option("given", "where prompts come from")
    captioner: str = option("", "folder of the BLIP model for automatic captions")
    resolution: int = option(512, "side of the training pictures in pixels (of a square of their area)", low=64)
    buckets: bool = option(
        False, "keep aspect ratios: pictures of one shape are trained together; up to a fifth of each is cut off"
    )
    flip: bool = option(False, "mirror picture and hint for half of the rows")
    crop: Literal["none", "centre", "random"] = option(
        "none", "which part is used of pictures that do not fit; none: such pictures are refused"
    )
    variants: int = option(1, "how often a pair is in the set, each time with other random cuts and settings", low=1)
    validation: float = option(0.01, "held out: a share below 1, or a count of pairs", low=0)
    cached: bool = option(
        True, "keep encoded pairs on the disk; false: encode each batch when it is needed, for sets too large to keep"
    )
    cache: str = option("", "folder of encoded pairs, shared by runs; empty: in the user's cache folder")
    workers: int = option(0, "threads that read pictures to encode them; 0: one for each core", low=0)

    def __post_init__(self) -> None:
        check(self, "data")
        differs = self.crop == "random" or (self.randomise and self.hints != "given")
        if self.variants > 1 and not differs:
            raise ConfigError(
                'data.variants makes pairs that differ in random cuts or settings: set data.crop to "random", or '
                "data.randomise where a preprocessor makes the hints."
            )


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """What is trained."""

    kind: Literal["controlnet", "control_lora", "lllite", "input_channels"] = option("controlnet", "which network")
    init: str = option("base", '"base", or the file of a ControlNet or Control-LoRA (lllite: of an LLLite)')
    keep_hint_encoder: bool = option(False, "go on with that file's hint encoder instead of making a new one")
    hint_encoder: Literal["released", "paper", "vae"] = option(
        "released", "how hints become features; vae: as latents of the base's own autoencoder"
    )
    zero_init: Literal["zero", "gaussian"] = option(
        "zero", "of the zero convolutions; gaussian is the paper's ablation"
    )
    rank: int = option(64, "of the matrices of a Control-LoRA or LLLite", low=1)
    links: Literal["all", "middle", "shallow"] = option(
        "all", "residuals that reach the UNet at first; shallow: those of the highest resolution, at less cost"
    )
    reconnect_at: int = option(0, "step from which all of them do; 0: never", low=0)
    unlock_decoder_at: int = option(
        0, "step from which the UNet's decoder is trained too, written beside the file as a LoRA; 0: never", low=0
    )
    decoder_learning_rate: float = option(2e-6, "of the unlocked decoder", low=0)

    def __post_init__(self) -> None:
        check(self, "target")
        check_target(self)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The loss."""

    prompt_dropping: float = option(0.5, "share of prompts replaced by the empty one", low=0, high=1)
    min_snr_gamma: float = option(0.0, "a timestep weighs min(SNR, gamma) / SNR; 0: all alike", low=0)
    offset_noise: float = option(0.0, "deviation of a constant added to each channel's noise", low=0, high=1)
    timesteps: Literal["uniform", "cubic", "learned"] = option(
        "uniform", "how they are drawn; cubic: mostly noisy ones"
    )

    def __post_init__(self) -> None:
        check(self, "objective")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights move."""

    name: Literal["adamw", "adamw8bit", "adafactor", "sgd"] = option("adamw", "which optimiser")
    learning_rate: float = option(1e-5, "at its highest", low=0)
    betas: tuple[float, float] = option(
        (0.9, 0.999), "of the running means (sgd: momentum is the first)", low=0, high=0.999999
    )
    weight_decay: float = option(1e-2, "decoupled, per step and learning rate", low=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = option("constant", "of the learning rate")
    warmup: float = option(0.0, "rise of the learning rate: a share of the steps below 1, or a count", low=0)
    clip: float = option(1.0, "largest norm of the gradient; 0: no limit", low=0)
    ema: float = option(0.0, "decay of the average of the weights that is kept; 0: none is", low=0, high=0.99999)
    in_backward: bool = option(False, "step inside the backward pass, which keeps one gradient at a time; needs clip 0")
    weights: Literal["fp32", "bf16"] = option("fp32", "of what is trained; bf16 is rounded stochastically")

    def __post_init__(self) -> None:
        check(self, "optimizer")
        if self.in_backward and self.clip:
            raise ConfigError("optimizer.in_backward knows no norm of all gradients: set optimizer.clip to 0.")
        if self.weights == "bf16" and not self.name.startswith("adamw"):
            raise ConfigError(f"optimizer.weights bf16 needs adamw or adamw8bit, got {self.name}.")


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """How it is computed."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "mixed precision of the computation; auto: bf16 where the device is made for it, else fp16 on a GPU and fp32 "
        "on a CPU",
    )
    base_dtype: Literal["auto", "fp32", "bf16", "int8", "fp8"] = option(
        "auto", "of the frozen UNet; auto: as the computation; int8 and fp8 take half of bf16's memory, int8 is closer"
    )
    compile: bool = option(False, "torch.compile for the blocks")
    channels_last: bool = option(False, "memory layout that convolutions on a GPU prefer")
    checkpointing: Literal["none", "one_level", "two_levels", "control", "decoder", "both", "auto"] = option(
        "auto",
        "gradient checkpointing, blocks whose activations are computed twice instead of kept: those of the highest "
        "resolution or the two highest, of the trained network, of the frozen decoder, or all; auto: as the plan needs",
    )
    micro_batch: int = option(
        0, "pairs computed at once, gradient accumulation does the rest; 0: as the plan finds that fit", low=0
    )
    threads: int = option(0, "CPU threads; 0: torch's own choice", low=0, high=4096)
    memory_gb: float = option(
        0.0, "memory (VRAM) that the run may take, in GiB; 0: what is free of a GPU's, all of a CPU's", low=0
    )
    fit: bool = option(
        False, "change optimiser, base_dtype and weights too, step by step, until the run fits into that memory"
    )
    tflops: float = option(0.0, "speed of the device in TFLOP/s, for the estimate of hours; 0: measured", low=0)

    def __post_init__(self) -> None:
        check(self, "hardware")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How it is watched."""

    every: int = option(500, "steps between pictures drawn from held-out hints; 0: none", low=0)
    count: int = option(4, "how many pictures", low=1)
    steps: int = option(20, "DDIM steps", low=1, high=999)
    cfg: float = option(3.0, "scale of classifier-free guidance", low=0)
    seed: int = option(0, "of their noise")
    probe_every: int = option(100, "steps between measurements of the paired loss gap; 0: none", low=0)

    def __post_init__(self) -> None:
        check(self, "validation")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The run."""

    output: str = option("out/controlnet", "folder for checkpoints, report and the finished file, which has its name")
    steps: int = option(10_000, "optimiser steps", low=1)
    batch: int = option(64, "pairs for each step, over all devices and micro-batches", low=1)
    seed: int = option(0, "of everything random", low=0)
    save_every: int = option(500, "steps between checkpoints", low=1)
    keep: int = option(2, "checkpoints kept", low=2)
    log_every: int = option(10, "steps between readings of the loss", low=1)
    trackers: str = option("", 'comma-separated, as accelerate names them: "tensorboard,wandb"')
    resume: Literal["auto", "never"] = option("auto", "go on from the newest checkpoint in the folder, if there is one")
    licence: str = option("", "SPDX identifier for the file's metadata")
    file_dtype: Literal["fp16", "bf16", "fp32"] = option("fp16", "of the finished file")
    strength: float = option(0.0, "that the file recommends to Apply ControlNet; 0: none", low=0, high=10)
    start_percent: float = option(0.0, "where the file recommends control to begin", low=0, high=1)
    end_percent: float = option(1.0, "where the file recommends control to end", low=0, high=1)

    def __post_init__(self) -> None:
        check(self, "run")
        if self.licence and not LICENCE.accepts(self.licence):
            raise ConfigError(f"run.licence must be {LICENCE.wants}, such as CC-BY-4.0, got {self.licence!r:.80}.")
        if self.start_percent >= self.end_percent:
            raise ConfigError(
                f"run.start_percent must be below run.end_percent, got {self.start_percent:g} and {self.end_percent:g}."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All of it."""

    base: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.hardware.precision == "fp32" and self.hardware.base_dtype == "bf16":
            raise ConfigError("hardware.base_dtype bf16 needs hardware.precision bf16, got fp32.")
        check_together(self.target, self.hardware)
        check_steps(self.target, self.run)
        check_places(self.data, self.run)
        if self.optimizer.in_backward and self.hardware.precision == "fp16":
            raise ConfigError("optimizer.in_backward does not go with hardware.precision fp16: use bf16.")

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> TrainConfig:
        """From parsed TOML; raises ConfigError that names the nearest valid table or key."""
        known = kinds(cls)
        for name, table in tables.items():
            if name not in known:
                raise ConfigError(f"There is no table [{name}].{nearest(name, [*known, *names()])}")
            if not isinstance(table, Mapping):
                raise ConfigError(f"[{name}] must be a table of settings, got {table!r:.80}.")
            check_keys(name, table)
        return cls(**{name: build(known[name], table, name) for name, table in tables.items()})

    @classmethod
    def from_toml(cls, path: Path, overrides: Mapping[str, str] | None = None) -> TrainConfig:
        """Read a recipe; `overrides` are {"optimizer.learning_rate": "1e-4"}, the words of a command line."""
        try:
            tables = parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The recipe {path} cannot be read: {error}.") from error
        for name, text in (overrides or {}).items():
            table, key = full_name(name).split(".")
            kind = kinds(kinds(cls)[table])[key]
            section = tables.setdefault(table, {})
            if isinstance(section, dict):
                section[key] = parsed(kind, text, f"{table}.{key}")
        return cls.from_tables(tables)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain tables."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """A recipe that reads back as this very config."""
        parts = (
            f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
            for name, table in self.to_dict().items()
        )
        return "\n".join(parts)


def names() -> list[str]:
    """Every setting: "run.steps", ..."""
    return [f"{table}.{key}" for table, kind in kinds(TrainConfig).items() for key in kinds(kind)]


def check_keys(table: str, keys: Iterable[str]) -> None:
    """Raise ConfigError for a key that the table does not have, naming the nearest one, or the table that has it."""
    own = [name.partition(".")[2] for name in names() if name.startswith(f"{table}.")]
    for key in keys:
        if key not in own:
            owners = [name for name in names() if name.endswith(f".{key}")]
            near = f" Did you mean {' or '.join(owners)}?" if owners else nearest(key, own)
            raise ConfigError(f"[{table}] has no setting {key!r}.{near}")


def full_name(name: str) -> str:
    """The setting meant by "run.steps", or by "steps" alone: the only one of that name, or the one of [run]."""
    wanted = name.replace("-", "_")
    found = [full for full in names() if full == wanted or full.endswith(f".{wanted}")]
    of_run = [full for full in found if full == f"run.{wanted}"]
    if len(found) == 1 or of_run:
        return (of_run or found)[0]
    if found:
        raise ConfigError(f"--{name} may mean {' or '.join(found)}: write it out.")
    raise ConfigError(
        f"There is no setting {name!r}.{nearest(wanted, [*names(), *(n.split('.')[1] for n in names())])}"
    )
