"""What docs/evaluation.md says is what there is."""

import json
import re
from pathlib import Path

import minigpt4
from minigpt4.evaluate.benchmarks.registry import BENCHMARKS, OFFICIAL

GUIDE = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
LISTED = GUIDE.partition("## Benchmarks")[2].partition("\n## ")[0]
TABLE = [line.split("|")[1:4] for line in LISTED.splitlines() if line.startswith("| `")]


def test_every_benchmark_is_named_with_its_files():
    named = {name: files for names, files, _ in TABLE for name in re.findall(r"`([^`]+)`", names)}
    assert set(named) == set(BENCHMARKS)
    files, again = "", 0
    for names, told, _ in TABLE:
        again += told.strip() == "the same"
        files = files if told.strip() == "the same" else told
        for name in re.findall(r"`([^`]+)`", names):
            for file in OFFICIAL[name].files if name in OFFICIAL else ():
                assert f"`{file.names[0]}`" in files, (name, file)
    assert again == 2


def test_the_commands_are_there():
    shown = re.findall(r"^minigpt4 evaluate (\w+)(.*)$", GUIDE, re.MULTILINE)
    assert [command for command, _ in shown] == [
        "prepare",
        "run",
        "score",
        "compare",
        "all",
        "run",
        "run",
        "judge",
        "run",
        "rate",
        "rate",
        "flaws",
    ]


def test_the_numbers_of_words_are_those_of_the_list():
    file = Path(minigpt4.__file__).parent / "metrics" / "coco_objects.json"
    listed = json.loads(file.read_text(encoding="utf-8"))
    words, phrases = re.search(r"(\d+) other words,\n?\s*(\d+) phrases", GUIDE).groups()
    assert (int(words), int(phrases)) == (sum(map(len, listed["classes"].values())), len(listed["phrases"]))
