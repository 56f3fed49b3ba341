"""What docs/pointing.md shows is what there is."""

import json
import re
from pathlib import Path

from PIL import Image
from test_pointing import Told

from minigpt4.engine.params import SamplingParams
from minigpt4.evaluate.annotations import Problems, read_places
from minigpt4.inference.task_settings import check_task_settings

GUIDE = (Path(__file__).parent.parent / "docs" / "pointing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (640, 480)).save("photo.jpg")
    (code,) = blocks("python")
    text = re.search(r'wrote it: "(.*)"', code)[1]
    told = Told(text)
    monkeypatch.setattr("minigpt4.load", lambda: told, raising=False)
    names: dict = {}
    exec(code, names)
    assert Path("drawn.png").exists()
    assert names["answer"].plain_text == re.search(r'plain_text  # "(.*)"', code)[1]
    assert [phrase for phrase, _ in names["answer"].phrases] == ["A man", "a dog"]


def test_the_settings_by_task_can_be_followed():
    check_task_settings(json.loads(blocks("json")[1]), SamplingParams.from_settings)


def test_the_rows_can_be_read(tmp_path):
    answer, _, rows = blocks("json")
    assert json.loads(answer)["phrases"][0]["boxes"][0]["pixels"] == [20, 20, 100, 60]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row for row in rows.splitlines() if "phrase" in row))
    assert [place.phrase for place in read_places(path, None, Problems())] == ["the dog", "A dog"]
