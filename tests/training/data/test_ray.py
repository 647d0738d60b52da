"""`annotate --ray`, on a cluster of one machine that Ray starts for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from controlnet_kit.training.commands import main
from picture_files import Make

INSTALLED = Path(sys.prefix).parent / "apart"
"""Beside this Python's environment, see scripts/bootstrap.py."""


def test_a_cluster_makes_the_hints_that_this_machine_makes(make_pairs: Make, tmp_path: Path) -> None:
    folder, here, cluster = make_pairs(12, hints=False), tmp_path / "here", tmp_path / "cluster"
    (folder / "images" / "003.png").write_bytes(b"nothing")
    words = ["--preprocessor", "canny", "--set", "low_threshold=[20,90]"]
    assert main(["annotate", str(folder), str(here), *words, "--workers", "1"]) == 1
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(INSTALLED)])
    done = subprocess.run(
        [sys.executable, "-m", "controlnet_kit", "annotate", str(folder), str(cluster), *words, "--ray"],
        env={**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "left out: " in done.stderr, done.stderr[-2000:]
    assert "003.png" in done.stderr and "Traceback" not in done.stderr
    made, wanted = ({path.name: path.read_bytes() for path in (out / "hints").iterdir()} for out in (cluster, here))
    assert made == wanted and len(made) == 11
