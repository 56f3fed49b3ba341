"""Rows in the official layouts, read: what the tests of published datasets share."""

import json
import random

import pytest
from PIL import Image


def asked(task, pool, subjects=("",)):
    return {f"[{task}] {wording.replace('{}', subject)}" for wording in pool for subject in subjects}


def pairs(questions, answers):
    return {(question, answer) for question in questions for answer in answers}


def drawn(source, index=0, draws=600):
    """All distinct (question, answer) of a sample of one turn."""
    found = set()
    for seed in range(draws):
        (turn,) = source.sample(index, random.Random(seed)).turns
        assert len(turn.answers) == 1
        found.add((turn.question, turn.answers[0]))
    return found


@pytest.fixture
def folder(tmp_path):
    def make(data, *images, size=(640, 480), name="annotations.json"):
        folder_ = tmp_path / "pictures"
        folder_.mkdir(exist_ok=True)
        for image in images:
            (folder_ / image).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(folder_ / image)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data), encoding="utf-8")
        return {"annotations": str(path), "images": str(folder_)}

    return make
