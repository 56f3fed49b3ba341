"""Two replicas by Ray Serve, one of which is killed under load, then both are replaced. Needs Ray; without it, see
`test_serve_relay`.

Without pytest: python benchmarks/replicas.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_folder

pytest.importorskip("ray.serve", reason="needs Ray Serve: pip install 'minigpt4[ray]'")
ROOT = Path(__file__).parents[1]


def test_no_request_is_lost_or_answered_twice(tmp_path):
    tiny_folder(tmp_path / "system")
    command = [
        sys.executable,
        "benchmarks/replicas.py",
        "--model",
        str(tmp_path / "system"),
        "--clients",
        "4",
        "--tokens",
        "200",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
