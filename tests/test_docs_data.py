"""What docs/data.md shows is what there is."""

import json
import random
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from minigpt4.data.formats import SOURCES, build_source, options_of
from minigpt4.data.formats.streams import TarStream

GUIDE = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```jsonl\n(.+?)\n```\n```\n(.+?)\n```", GUIDE, re.DOTALL)


def parse(shown):
    """The turns of an example: questions, each with its answers."""
    turns = []
    for line in shown.splitlines():
        kind, text = line[0], line[2:]
        if kind == "?":
            turns.append((text, []))
        else:
            turns[-1][1].append(text)
    return [(question, tuple(answers)) for question, answers in turns]


@pytest.mark.parametrize(("row", "shown"), EXAMPLES)
def test_every_example_becomes_what_is_shown(tmp_path, row, shown):
    for name in ("dog.jpg", "before.jpg", "after.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text(row)
    source = build_source("jsonl", annotations=str(tmp_path / "rows.jsonl"), captions="all")
    drawn = [[(t.question, t.answers) for t in source.sample(0, random.Random(seed)).turns] for seed in range(300)]
    assert parse(shown) in drawn


def test_all_forms_and_keys_are_shown():
    rows = [json.loads(row) for row, _ in EXAMPLES]
    keys = {key for row in rows for key in row}
    assert keys >= {
        "image",
        "images",
        "task",
        "answer",
        "answers",
        "question",
        "phrase",
        "boxes",
        "text",
        "phrases",
        "conversation",
    }
    assert {row.get("task") for row in rows} == {None, "caption", "vqa", "refer", "identify", "detection"}


def test_every_format_and_every_option_of_it_is_named():
    for format, cls in SOURCES.items():
        assert f"`{format}`" in GUIDE
        for option in options_of(cls):
            assert re.search(rf"`{option}\b", GUIDE), f"{format}: {option}"
    named = set(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", GUIDE.partition("## The published")[2], re.MULTILINE))
    formats = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert formats <= set(SOURCES)
    assert set(SOURCES) - formats == {"jsonl", "parquet", "webdataset", "webdataset_stream", "hf"}


def test_the_recipe_names_formats_and_options_that_there_are():
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", GUIDE, re.DOTALL)]
    for dataset in [one for block in shown for one in (block if isinstance(block, list) else block["data"]["datasets"])]:
        known = {*options_of(SOURCES[dataset["format"]]), "format", "ratio", "batch", "mirror", "malformed"}
        assert set(dataset) <= known


def test_what_python_is_shown_runs(tmp_path, monkeypatch):
    (shown,) = re.findall(r"```python\n(.+?)```", GUIDE, re.DOTALL)
    captions = ["A brown dog jumps over a wooden fence.", "A dog waits in a garden with tall flowers."]
    row = {"image": "dog.jpg", "task": "caption", "answers": captions}
    question = {"image": "dog.jpg", "question": "Who waits?", "answer": "a dog", "task": "vqa"}
    (tmp_path / "captions.jsonl").write_text(json.dumps(row))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(question))
    monkeypatch.chdir(tmp_path)
    exec(shown, {})
    Image.new("RGB", (8, 8)).save("dog.jpg")
    for made in ("conversations.jsonl", "descriptions.jsonl"):
        assert len(build_source("jsonl", annotations=made)) >= 1


def test_streams_have_no_split():
    streams = [kind for kind in SOURCES.values() if isinstance(kind, type) and issubclass(kind, TarStream)]
    assert len(streams) == 3
    assert not any("split" in options_of(kind) for kind in streams)
