"""Two processes compute what one does for every target, also while parts of it are not used yet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from controlnet_kit.cn_core.files import checkpoint
from training_runs import configured, finished, trainer
from two_processes import two_processes

TARGETS = {
    "late": {"links": "middle", "reconnect_at": 2, "unlock_decoder_at": 3, "decoder_learning_rate": 0.1},
    "lora": {"kind": "control_lora", "rank": 4, "links": "shallow", "reconnect_at": 2},
    "lllite": {"kind": "lllite", "rank": 4},
    "wider": {"kind": "input_channels", "hint_encoder": "vae", "unlock_decoder_at": 2},
}
TABLES = {
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "clip": 0.01},
    "run": {"steps": 4, "batch": 4, "file_dtype": "fp32"},
}
PROGRAM = """
from controlnet_kit.training.commands.train import accelerator_for
from training_runs import configured, trainer
for name, target in {targets!r}.items():
    config = configured(Path(sys.argv[1]) / name, target=target, **{tables!r})
    run = trainer(config, accelerator=accelerator_for(config))
    assert run.accelerator.num_processes == 2
    list(run.run())
"""


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes."""
    folder = tmp_path_factory.mktemp("joint")
    two_processes(PROGRAM.format(targets=TARGETS, tables=TABLES), str(folder))
    return folder


@pytest.mark.parametrize("name", TARGETS)
def test_same_as_one_process(joint: Path, tmp_path: Path, name: str) -> None:
    finished(trainer(configured(tmp_path / name, target=TARGETS[name], **TABLES)))
    files = sorted(path.name for path in (tmp_path / name).glob("*.safetensors"))
    assert files == sorted(path.name for path in (joint / name).glob("*.safetensors"))
    for file in files:
        one, two = (checkpoint.read(folder / name / file).tensors for folder in (tmp_path, joint))
        assert one.keys() == two.keys()
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
