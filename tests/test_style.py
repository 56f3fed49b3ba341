"""Style and types are tests like any others, so that all cores have something to do while they are checked."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("check", ["mypy", "ruff check .", "ruff format --check ."])
def test_style_and_types(check):
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", *check.split()], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
