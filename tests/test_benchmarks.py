"""Benchmarks that are run once in a while call what is there: what they measure is not measured here."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_config, tiny_model, tiny_processor
from PIL import Image

import minigpt4

FOLDER = Path(__file__).parents[1] / "benchmarks"


def benchmark(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_system_of_full_size_is_asked_and_trained(tmp_path, monkeypatch, capsys):
    module, model = benchmark("full_size", monkeypatch), tiny_model()
    monkeypatch.setattr(module, "full_size", lambda _: tiny_config())
    monkeypatch.setattr(module, "memory", lambda *_: {"weights": 0})
    monkeypatch.setattr(module, "available", lambda: 10**12)
    monkeypatch.setattr(module, "write_files", lambda *_: {})
    monkeypatch.setattr(module, "import_official", lambda **_: None)
    monkeypatch.setattr(module, "load_system", lambda *_, **__: (model, tiny_processor(model.config)))
    command = f"full_size.py minigptv2-7b --folder {tmp_path / 'scratch'} --tokens 3 --train"
    monkeypatch.setattr(sys, "argv", command.split())
    module.main()
    said = capsys.readouterr().out
    for step in ("encode a picture: ", "answer with 1 token(s): ", "answer with 3 token(s): ", "train one step: "):
        assert step in said


def test_batches_of_both_precisions_are_compared_on_one_backend(tmp_path, monkeypatch, capsys):
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    loaded = []

    def load(**how):
        loaded.append(how)
        model = tiny_model()
        return minigpt4.Assistant(model.to(getattr(torch, how["dtype"])), tiny_processor(model.config))

    monkeypatch.setattr(minigpt4, "load", load)
    monkeypatch.setattr(sys, "argv", ["batches.py", str(tmp_path), "--beams", "1"])
    benchmark("batches", monkeypatch).main()
    assert [how["backend"] for how in loaded] == ["torch", "torch"]
    assert "| float32 | 1 |" in capsys.readouterr().out
