"""The entry point by which vLLM knows our folders; with an environment that has vLLM (VLLM_PYTHON), the same tokens too."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


class Registry:
    """Takes down what is registered, as vLLM's does."""

    known = {}

    @classmethod
    def get_supported_archs(cls):
        return cls.known.keys()

    @classmethod
    def register_model(cls, name, place):
        assert name not in cls.known
        cls.known[name] = place


def test_vllm_is_told_of_a_model_that_is_there(monkeypatch):
    vllm = ModuleType("vllm")
    vllm.ModelRegistry = Registry
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    register = EntryPoint("minigpt4", declared["minigpt4"], "vllm.general_plugins").load()
    register()
    register()  # vLLM does so in each of its processes, and sometimes twice
    ((name, place),) = Registry.known.items()
    assert name == "MiniGPT4ForConditionalGeneration", "as config.json of an exported folder says"
    module, _, kind = place.partition(":")
    source = ast.parse(Path(find_spec(module).origin).read_text())
    made = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == kind)
    methods = {node.name for node in made.body if isinstance(node, ast.FunctionDef)}
    assert methods >= {
        "embed_multimodal",
        "embed_input_ids",
        "forward",
        "compute_logits",
        "load_weights",
        "get_placeholder_str",
    }


@pytest.mark.skipif("VLLM_PYTHON" not in os.environ, reason="needs an environment with vLLM: its Python in VLLM_PYTHON")
def test_vllm_gives_the_same_tokens(tmp_path):
    from minigpt4.checkpoints.export import export

    folder = export("pocket", tmp_path / "pocket")
    command = [sys.executable, "benchmarks/beside_vllm.py", str(folder), "--vllm", os.environ["VLLM_PYTHON"], "--no-speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "10 of 10 questions have the same tokens" in done.stdout
