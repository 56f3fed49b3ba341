"""Who made an answer: whatever answers depend on changes the name, and nothing else does."""

import json
import shutil

import pytest
import torch
from conftest import tiny_folder
from safetensors.torch import load_file, save_file

from minigpt4.io import hub
from minigpt4.io.hub import commit_of
from minigpt4.jobs import made_by
from minigpt4.jobs.made_by import signature


@pytest.fixture
def trained(tmp_path):
    """A trained folder whose base is another one, and that one's language model a third."""
    torch.manual_seed(0)
    tiny_folder(tmp_path / "base")
    (tmp_path / "llm").mkdir()
    save_file({"w": torch.zeros(3)}, tmp_path / "llm" / "model.safetensors")
    rewrite(tmp_path / "base" / "config.json", text_source=str(tmp_path / "llm"))
    (tmp_path / "trained").mkdir()
    save_file({"projection.weight": torch.zeros(2)}, tmp_path / "trained" / "trained.safetensors")
    (tmp_path / "trained" / "config.json").write_text(json.dumps({"base_source": str(tmp_path / "base")}))
    return tmp_path / "trained"


def rewrite(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes, indent=7))


def add_one(file):
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def test_what_lies_elsewhere_of_a_system_is_part_of_it(trained, tmp_path):
    seen = [signature(str(trained), {})]
    for file in ("trained/trained.safetensors", "base/model.safetensors", "llm/model.safetensors"):
        add_one(tmp_path / file)
        seen.append(signature(str(trained), {}))
    rewrite(tmp_path / "base" / "generation_config.json", num_beams=7)
    seen.append(signature(str(trained), {}))
    (tmp_path / "base" / "tokenizer.json").write_text((tmp_path / "base" / "tokenizer.json").read_text() + " ")
    seen.append(signature(str(trained), {}))
    assert len(set(seen)) == 6


def test_what_changes_no_answer_is_no_part_of_it(trained, tmp_path):
    before = signature(str(trained), {})
    rewrite(tmp_path / "base" / "config.json", transformers_version="9.9.9", architectures=["X"], _name_or_path="/elsewhere")
    (tmp_path / "base" / "README.md").write_text("a card")
    shutil.move(tmp_path / "base", tmp_path / "moved")
    rewrite(trained / "config.json", base_source=str(tmp_path / "moved"))
    assert signature(str(trained), {}) == before


def test_the_pocket_model_is_told_from_its_parts(trained):
    rewrite(trained / "config.json", base_source="pocket")
    first = signature(str(trained), {})
    rewrite(trained / "config.json", base_source="pocket-before-stage2")
    assert signature(str(trained), {}) != first
    assert signature("pocket", {}).startswith("pocket@")


def test_a_base_that_names_itself_has_an_end(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"base_source": str(tmp_path)}))
    assert "@" in signature(str(tmp_path), {})


def test_a_repository_of_the_hub_is_told_by_its_commit(tmp_path, monkeypatch, trained):
    asked = []
    monkeypatch.setattr(made_by, "commit_of", lambda name: asked.append(name) or ("1" * 40 if len(asked) < 3 else "2" * 40))
    rewrite(trained / "config.json", text_source="some/llm")
    first = [signature("some/system", {}), signature(str(trained), {})]
    second = [signature("some/system", {}), signature(str(trained), {})]
    assert asked == ["some/system", "some/llm"] * 2
    assert first[0] == f"some/system@{'1' * 8}"
    assert not set(first) & set(second)


def test_offline_the_commit_is_what_was_fetched_last(tmp_path, monkeypatch):
    from huggingface_hub import HfApi, constants

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "repo_info", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert commit_of("some/system") is None
    refs = tmp_path / "datasets--some--rows" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("abc\n")
    assert hub.commit_of("some/rows", "dataset") == "abc"
    assert commit_of("some/rows") is None
