"""docs/official-weights.md: its commands are run on small files of the same names, its numbers are recomputed."""

import io
import re
import shlex
from pathlib import Path

import pytest
import torch
from official_files import write_system
from PIL import Image

import minigpt4.checkpoints.official as official
from minigpt4.checkpoints.official.full_size import SYSTEMS, full_size, memory
from minigpt4.cli import app

TEXT = (Path(__file__).parents[1] / "docs" / "official-weights.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with small files under the names of the page."""
    names = {
        "minigptv2": {"checkpoint.pth": "checkpoint_stage3.pth", "llm": "Llama-2-7b-chat-hf"},
        "minigpt4-vicuna": {"checkpoint.pth": "prerained_minigpt4_7b.pth", "llm": "vicuna-7b"},
        "minigpt4-llama2": {"checkpoint.pth": "pretrained_minigpt4_llama2_7b.pth"},
    }
    for kind, renamed in names.items():
        write_system(tmp_path / kind, kind)
        for old, new in renamed.items():
            (tmp_path / kind / old).rename(tmp_path / new)
    for file in ("eva_vit_g.pth", "bert_config.json"):
        (tmp_path / "minigpt4-vicuna" / file).rename(tmp_path / file)
    (tmp_path / "minigpt4-vicuna" / "blip2.pth").rename(tmp_path / "blip2_pretrained_flant5xxl.pth")
    Image.new("RGB", (64, 48), "olive").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("what is it?\n/quit\n"))
    return tmp_path


def test_every_command_does_what_the_page_says(here, capsys):
    run = []
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        if program == "pip":
            assert "'minigpt4[official]'" in line
            continue
        assert program == "minigpt4"
        if arguments[0] == "import-official":
            arguments += ["--vit-heads", "4"]  # the files are not of the released sizes
        elif arguments[0] != "export-official":
            arguments += ["--dtype", "float32", "--max-new-tokens", "3"]
        app(arguments, standalone_mode=False)
        run.append(arguments[0])
    assert run == ["import-official", "ask", "import-official", "import-official", "chat", "export-official"]
    said = capsys.readouterr().out
    assert [f"kind: {kind}" in said for kind in ("minigptv2", "minigpt4-vicuna", "minigpt4-llama2")] == [True] * 3
    assert (here / "checkpoint.pth").exists()
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    pytest.importorskip("bitsandbytes")
    exec(compile(code.replace('quantize="4bit"', 'quantize="8bit", device="cpu"'), "page", "exec"), {})


def test_memory_table_is_computed():
    rows = dict(re.findall(r"^\| `(minigpt[a-z0-9-]+)` \| (.+) \|$", TEXT, re.M))
    assert set(rows) == set(SYSTEMS)
    for name, row in rows.items():
        config = full_size(name)
        weights = [
            memory(config, torch.bfloat16, 0)["weights"],
            memory(config, torch.bfloat16, 0, 8)["weights"],
            memory(config, torch.bfloat16, 0, 4)["weights"],
            memory(config, torch.float32, 0)["weights"],
            memory(config, torch.bfloat16, 1000)["cache"],
        ]
        assert [float(cell) for cell in row.split(" | ")] == [round(w / 1e9, 1) for w in weights]


def test_every_message_of_the_page_is_one_of_ours():
    (folder,) = official.__path__
    source = "".join(file.read_text() for file in Path(folder).glob("*.py"))
    rows = re.search(r"\| message \| what happened \|\n\|---\|---\|\n(.*?)\n\n", TEXT, re.S)
    messages = [line.strip("| ").split(" | ")[0] for line in rows[1].splitlines()]
    assert len(messages) > 8
    for message in messages:
        start = re.split(r"\d| \.\.\.", message)[0].strip()
        assert start in source, message
