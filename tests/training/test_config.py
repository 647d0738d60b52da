"""Recipes: what is read is what was written, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from controlnet_kit.training import config as settings
from controlnet_kit.training import flags
from controlnet_kit.training.config import TrainConfig, full_name, names
from controlnet_kit.training.errors import ConfigError


def read(tmp_path: Path, text: str, **overrides: str) -> TrainConfig:
    """A recipe of this text."""
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return TrainConfig.from_toml(path, overrides)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    text = '[data]\npath = "a \\"b\\" ü"\nrandomise = { low_threshold = [20, 100] }\npreprocessor_params = { a = 1 }'
    config = read(tmp_path, text, **{"learning-rate": "1e-4", "run.batch": "8", "optimizer.betas": "[0.8, 0.9]"})
    assert config.data.randomise == {"low_threshold": (20.0, 100.0)}
    assert (config.optimizer.learning_rate, config.run.batch, config.optimizer.betas) == (1e-4, 8, (0.8, 0.9))
    assert read(tmp_path, config.to_toml()) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[optimiser]", "no table [optimiser]. Did you mean optimizer?"),
        ("[run]\nstep = 1", "no setting 'step'. Did you mean steps?"),
        ("[run]\nlearning_rate = 1", "Did you mean optimizer.learning_rate?"),
        ("steps = 1", "no table [steps]. Did you mean run.steps?"),
        ("run = 1", "[run] must be a table"),
        ("[run]\nsteps = '3'", "run.steps must be a whole number, got '3'"),
        ("[run]\nsteps = true", "run.steps must be a whole number"),
        ("[run]\nsteps = 0", "run.steps must be at least 1, got 0"),
        ("[objective]\nprompt_dropping = 1.5", "objective.prompt_dropping must be 0 to 1, got 1.5"),
        ("[optimizer]\nname = 'adam'", "Did you mean adamw?"),
        ("[optimizer]\nbetas = [1]", "optimizer.betas must be 2 numbers in brackets"),
        ("[data]\nrandomise = 3", "data.randomise must be a table"),
        ("[run", "is not valid TOML"),
        ("[optimizer]\nin_backward = true", "set optimizer.clip to 0"),
        ("[base]\nvae = 'vae.safetensors'", "base.vae is 'vae.safetensors', and the embedded base has its own"),
        ("[base]\npath = 'tiny'\ntokenizer = 'words'", "base.tokenizer is 'words'"),
        ("[target]\nzero_init = 'gaussian'\ninit = 'canny.safetensors'", "would undo what the zero convolutions"),
        ("[target]\nlinks = 'middle'\nreconnect_at = 10000", "target.reconnect_at is 10000, and the run ends after"),
        ("[target]\nunlock_decoder_at = 9\n[run]\nsteps = 8", "as --target.unlock_decoder_at 4 does, or to 0"),
        ("[hardware]\nprecision = 'fp32'\nbase_dtype = 'bf16'", "needs hardware.precision bf16"),
        ("[data]\ncache = 'out/it/cache'\n[run]\noutput = 'out/it'", "out/it/cache lies in run.output out/it"),
        ("[run]\nlicence = 'CC BY/4.0'", "run.licence must be 1 to 64 printable characters"),
        ("[run]\nstart_percent = 0.5\nend_percent = 0.5", "must be below run.end_percent, got 0.5 and 0.5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "steps", "setting"),
    [("small-scale", "2000", "reconnect_at"), ("large-scale", "40000", "unlock_decoder_at")],
)
def test_a_recipe_that_is_cut_short_says_what_it_would_never_do(recipe: str, steps: str, setting: str) -> None:
    path = flags.recipe_file(recipe)
    with pytest.raises(ConfigError, match=f"target.{setting} is .* set it to less than that"):
        TrainConfig.from_toml(path, {"steps": steps})
    earlier = TrainConfig.from_toml(path, {"steps": steps, setting: "100"})
    assert getattr(earlier.target, setting) == 100


@pytest.mark.parametrize(
    ("setting", "text", "words"),
    [
        ("betas", "[2,3]", "optimizer.betas must be 0 to 0.999999, got (2.0, 3.0)"),
        ("betas", "[0.9, 1]", "optimizer.betas must be 0 to 0.999999"),
        ("learning-rate", "inf", "optimizer.learning_rate must be a finite number"),
        ("learning-rate", "nan", "optimizer.learning_rate must be a finite number"),
        ("randomise", "{ low_threshold = [0, inf] }", "data.randomise must be a finite number"),
        ("seed", "99999999999999999999", "run.seed must be a finite number, at most 9223372036854775807"),
        ("seed", "9" * 400, "run.seed must be a finite number"),
        ("threads", "5000000000", "hardware.threads must be 0 to 4096"),
        ("data.validation", ".1.", "data.validation must be a number, got '.1.'"),
        ("steps", "1e3", "run.steps must be a whole number"),
        ("fit", "yes", "hardware.fit must be true or false, got 'yes'"),
    ],
)
def test_numbers_that_are_none_or_too_large(tmp_path: Path, setting: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "", **{setting: text})
    assert words in str(error.value)


def test_numbers_may_be_spelt_as_in_python(tmp_path: Path) -> None:
    given = {"data.validation": ".1", "betas": "[.8, 0.9]", "steps": "007", "clip": "2.", "seed": "0x10"}
    config = read(tmp_path, "", **given)
    assert (config.data.validation, config.optimizer.betas, config.run.steps) == (0.1, (0.8, 0.9), 7)
    assert (config.optimizer.clip, config.run.seed) == (2.0, 16)


def test_names_on_the_command_line() -> None:
    assert full_name("steps") == "run.steps" and full_name("learning-rate") == "optimizer.learning_rate"
    with pytest.raises(ConfigError, match=r"base\.path or data\.path"):
        full_name("path")
    with pytest.raises(ConfigError, match="Did you mean learning_rate"):
        full_name("lerning-rate")


def test_every_setting_says_what_it_means() -> None:
    text = " ".join(flags.parser().format_help().split())
    for name in names():
        table, key = name.split(".")
        kind = settings.kinds(TrainConfig)[table]
        assert kind.__dataclass_fields__[key].metadata["help"] in text.replace("- ", "-") or f"--{name}" in text


@pytest.mark.parametrize("name", flags.shipped())
def test_shipped_recipes_are_valid(name: str) -> None:
    TrainConfig.from_toml(flags.recipe_file(name))
