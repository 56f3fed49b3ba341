"""One question answered without torch: the same answer, in the same pieces, and only where it is the same."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_processor, tiny_qformer
from hypothesis import given
from hypothesis import strategies as st
from quick_systems import IMAGES, NO_TORCH, QUESTIONS, model_of, stored, systems  # noqa: F401  (a fixture)
from transformers import PreTrainedTokenizerFast

from minigpt4 import UserError, cli
from minigpt4.checkpoints.onnx_vision import has_vision_graph, write_vision
from minigpt4.cli.options import System
from minigpt4.engine.completion import Request
from minigpt4.engine.limits import Limits
from minigpt4.engine.onnx_session import session
from minigpt4.engine.params import SamplingParams
from minigpt4.engine.sampling import penalised
from minigpt4.inference import quick as module
from minigpt4.inference import quick_engine
from minigpt4.inference.assistant import load
from minigpt4.inference.quick import Quick, quick
from minigpt4.inference.quick_engine import FACTS, TOKENIZER, VISION, Facts, likeliest
from minigpt4.io import gpu
from minigpt4.prompt.templates import with_images

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize("maps", [("head",), ("stage3", "head", "stage5")])
@pytest.mark.parametrize(
    "order", [{"concat_order": "square"}, {"concat_order": "row", "position_octaves": 3, "position_scale": 2.0}]
)
@pytest.mark.parametrize(
    "classes", [{}, {"class_tokens": 3}, {"class_tokens": 2, "own_classes": 5}, {"class_tokens": 1, "own_classes": [4, 1, 2]}]
)
def test_the_vision_graph_gives_what_torch_gives(maps, order, classes, tmp_path):
    model = model_of(maps, (1, 2) if classes else (), **classes, **order)
    if classes:
        model.vision_tower.class_branch.fc.weight.data.normal_(0, 0.1)  # it is sure of something
    assert has_vision_graph(model.config)
    write_vision(model, tmp_path / VISION)
    run = session(tmp_path / VISION, 1).run
    for _ in range(3):
        pixels = torch.randn(1, 3, 128, 128)
        with torch.no_grad():
            wanted = model.get_image_features(pixels).numpy()
        (got,) = run(None, {"pixels": pixels.numpy()})
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() < 1e-4 * max(1, np.abs(wanted).max() / 10)


SETTINGS = [
    {},
    {"max_new_tokens": 1},
    {"repetition_penalty": 1.0, "min_new_tokens": 12},
    {"repetition_penalty": 1.6, "min_new_tokens": 16},
    {"repetition_penalty": 0.7, "no_repeat_ngram_size": 3},
    {"no_repeat_ngram_size": 1, "min_new_tokens": 16},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 30, "max_new_tokens": 40},
    {"do_sample": False, "stop": ["a", "e"], "min_new_tokens": 9},
]


@pytest.mark.parametrize("template", ["chatml", "vicuna-v0"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_same_answer_in_the_same_pieces(template, settings, systems, monkeypatch):
    folder, plain = systems[template]
    settings = {"max_new_tokens": 20} | settings
    ids: list[int] = []
    choose = quick_engine.likeliest
    monkeypatch.setattr(quick_engine, "likeliest", lambda *given: ids.append(choose(*given)) or ids[-1])
    for number, question in enumerate(QUESTIONS):
        images = IMAGES[: 1 + number]
        found = quick(folder, question, settings, dtype="float32")
        assert found is not None
        ids.clear()
        pieces = list(found.stream(images, question, **settings))
        params = plain.plan(question, settings, streamed=True).params
        said = with_images(plain.engine.plain(question), len(images))
        request = Request(messages=[{"role": "user", "content": said}], images=images, params=params)
        (done,) = plain.engine.generate([request])[0]
        assert tuple(ids) == done.token_ids
        assert pieces == list(plain.stream(images, question, **settings))
        assert "".join(pieces) == done.text
        whole = found.ask(images, question, **settings)
        assert (whole, whole.question) == (done.text, question)
        assert whole.image == (images[0] if len(images) == 1 else None)


BEAMS = [
    {"num_beams": 3},
    {"num_beams": 2, "max_new_tokens": 1},
    {"num_beams": 4, "length_penalty": 2.0, "repetition_penalty": 1.3},
    {"num_beams": 5, "length_penalty": -2.0, "min_new_tokens": 6},
    {"num_beams": 3, "no_repeat_ngram_size": 2, "min_new_tokens": 16},
    {"num_beams": 3, "stop": ["a", "e"], "min_new_tokens": 5},
]


@pytest.mark.parametrize("template", ["chatml", "vicuna-v0"])
@pytest.mark.parametrize("settings", BEAMS, ids=str)
def test_the_same_beams(template, settings, systems):
    folder, plain = systems[template]
    settings = {"max_new_tokens": 20} | settings
    for number, question in enumerate(QUESTIONS):
        images = IMAGES[: 1 + number]
        found = quick(folder, question, settings, dtype="float32")
        assert found is not None
        assert not found.streams(question, settings)
        assert found.ask(images, question, **settings) == plain.ask(images, question, **settings)


@pytest.mark.parametrize("early", [True, "never"])
def test_beams_end_when_the_system_says(early, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "may_have_gpu", lambda: False)
    folder = stored(tmp_path)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"early_stopping": early}))
    plain = load(folder, dtype="float32")
    settings = {"num_beams": 4, "max_new_tokens": 24, "length_penalty": 1.5}
    found = quick(folder, "what?", settings, dtype="float32")
    assert found is not None
    assert found.facts.defaults.early_stopping == early
    for question in QUESTIONS:
        assert found.ask(IMAGES[:1], question, **settings) == plain.ask(IMAGES[:1], question, **settings)


def test_captions_are_the_same(systems):
    folder, plain = systems["chatml"]
    settings = {"max_new_tokens": 12}
    found = quick(folder, "", settings, dtype="float32", task="caption")
    assert found is not None
    assert found.caption(IMAGES, **settings) == plain.caption(IMAGES, **settings)  # with the beams that this system wishes


def test_a_prompt_that_is_read_in_pieces(systems, monkeypatch):
    folder, plain = systems["chatml"]
    question, settings = "so many words? " * 9, {"max_new_tokens": 12, "min_new_tokens": 12}
    monkeypatch.setattr(quick_engine, "Limits", partial(Limits, prefill=7))
    found = quick(folder, question, settings, dtype="float32")
    assert found is not None
    assert "".join(found.stream(IMAGES[:2], question, **settings)) == "".join(plain.stream(IMAGES[:2], question, **settings))


@pytest.mark.parametrize("kept_as", [{}, {"quantize": "4bit", "backend": "onnx"}], ids=str)
def test_in_few_bits_too(kept_as, tmp_path, monkeypatch):
    """There an answer may hang on the last digit of an image: it is encoded alike."""
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "may_have_gpu", lambda: False)
    folder, settings = stored(tmp_path), {"max_new_tokens": 16, "min_new_tokens": 16}
    plain = load(folder, **kept_as)
    assert quick(folder, "what?", settings, dtype="float32") is None  # another precision is prepared
    found = quick(folder, "what?", settings, **kept_as)
    assert found is not None
    (encoded,) = plain.engine.encode(IMAGES[:1])
    assert np.array_equal(found.engine.encode(IMAGES[:1])[0].embeds, encoded.embeds.numpy())
    assert list(found.stream(IMAGES[:1], "what?", **settings)) == list(plain.stream(IMAGES[:1], "what?", **settings))


@given(st.data())
def test_the_next_token_is_the_engine_s(data):
    said = data.draw(st.lists(st.integers(0, 11), max_size=12))
    params = SamplingParams(
        repetition_penalty=data.draw(st.sampled_from([0.5, 1.0, 1.15, 3.0])),
        no_repeat_ngram_size=data.draw(st.integers(0, 4)),
        min_new_tokens=data.draw(st.integers(0, 8)),
    )
    logits = torch.randn(12, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    changed = penalised(params, logits, said, frozenset({2, 5}))
    wanted = logits if changed is None else changed
    ours = logits.numpy().copy()
    token = likeliest(ours, said, params, frozenset({2, 5}))
    assert np.array_equal(ours, wanted.numpy())
    assert token == wanted.argmax().item()


def test_it_answers_what_it_can_and_nothing_else(systems, monkeypatch):
    folder, _ = systems["chatml"]

    def can(question="what?", source=folder, backend="auto", quantize=None, dtype="float32", **settings):
        return quick(source, question, settings, backend=backend, quantize=quantize, dtype=dtype) is not None

    assert can()
    assert can(source=str(folder))
    assert can(backend="onnx", max_new_tokens=3, repetition_penalty=2.0, do_sample=False, num_beams=1, self_consistency=1)
    assert can("[vqa] why?")
    assert can("[refer] it", self_consistency=1)
    assert can("[caption] so")  # this system wishes beams for it
    assert can(num_beams=2, length_penalty=2.0)
    for settings in ({"do_sample": True}, {"temperature": 0.5}, {"self_consistency": 3}, {"logprobs": 1}):
        assert not can(**settings)
    for wrong in ({"max_new_tokens": 0}, {"nope": 1}, {"temperature": 0.5, "do_sample": False}, {"zoom_in": True}):
        assert not can(**wrong)  # whoever loads the system says what is wrong
    assert not can("[refer] it")  # and several answers for this
    assert not can("[grounding]", zoom_in=True)
    assert not can("[nope] it")
    assert not can(backend="torch")
    assert not can(quantize="8bit")  # torch's
    assert not can(dtype="bfloat16")
    assert not can(dtype=None)  # 8 bits, which are not prepared
    assert not can(source="owner/name")
    assert not can(source=folder / "nowhere")
    monkeypatch.setattr(module, "may_have_gpu", lambda: True)
    assert not can()


def test_errors_are_the_same(systems):
    folder, plain = systems["chatml"]
    question, settings = "word " * 120, {"max_new_tokens": 20}
    found = quick(folder, question, settings, dtype="float32")
    assert found is not None
    said = []
    for system in (found, plain):
        with pytest.raises(UserError, match="the question is too long") as told:
            list(system.stream(IMAGES[:1], question, **settings))
        said.append(str(told.value))
    assert said[0] == said[1]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A prepared system in a cache of its own, to be spoilt."""
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "may_have_gpu", lambda: False)
    folder = stored(tmp_path)
    load(folder)
    return folder


def kept(folder: Path) -> Path:
    found = quick(folder, "what?", {})
    assert found is not None
    return found.folder


def test_what_is_damaged_or_of_other_weights_is_not_taken(own):
    assert Quick(kept(own), Facts.read(kept(own) / FACTS), True).can_answer("what?", {})
    for name in (VISION, f"{VISION}.data", TOKENIZER, FACTS, "state.json", "model.onnx.data", "embeddings.npy"):
        file = kept(own) / name
        file.write_bytes(file.read_bytes()[:-1])
        assert quick(own, "what?", {}) is None, name
        load(own)  # makes it anew
    for file in (own / "trained.safetensors", own / "generation_config.json", own.parent / "vision" / "model.safetensors"):
        kept(own)
        os.utime(file, (1, 1))
        assert quick(own, "what?", {}) is None, file
        load(own)
    shutil.copytree(own.parent / "llm", own.parent / "other")
    (own.parent / "llm").rename(own.parent / "first")
    (own.parent / "llm").symlink_to(own.parent / "first")
    load(own)
    kept(own)
    (own.parent / "llm").unlink()
    (own.parent / "llm").symlink_to(own.parent / "other")  # the same name, another folder
    assert quick(own, "what?", {}) is None
    shutil.rmtree(own.parent / "vision")
    assert quick(own, "what?", {}) is None


def test_what_a_system_says_of_itself_is_kept(own, tmp_path):
    facts = Facts.read(kept(own) / FACTS)
    facts.write(tmp_path / "again.json")
    assert Facts.read(tmp_path / "again.json") == facts
    plain = load(own)
    assert facts.defaults == plain.engine.defaults
    assert facts.special == list(plain.processor.special_texts)


def test_a_system_that_auto_leaves_to_torch(systems, monkeypatch):
    folder, _ = systems["chatml"]
    read = Facts.read
    monkeypatch.setattr(Facts, "read", lambda file: Facts(**vars(read(file)) | {"fits": False}))
    assert quick(folder, "what?", {}, dtype="float32") is None
    assert quick(folder, "what?", {}, dtype="float32", backend="onnx") is not None


@pytest.mark.parametrize("changes", [{"projection_depth": 2}, {"connector": "qformer"}], ids=str)
def test_other_systems_are_answered_with_torch_s_vision_encoder(changes, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "may_have_gpu", lambda: False)
    if "connector" in changes:
        width = model_of(position_octaves=2).config.token_width
        changes |= {"qformer_config": tiny_qformer(encoder_hidden_size=width), "num_query_tokens": 4}
    folder = stored(tmp_path, **changes)
    assert load(folder).engine.backend.name == "onnx"
    assert quick(folder, "what?", {}) is None


def test_a_tokenizer_that_does_more_than_its_file_is_left_to_the_library(tmp_path):
    class More(PreTrainedTokenizerFast):
        def _decode(self, *given, **named):
            return super()._decode(*given, **named).upper()

    model = model_of()
    processor = tiny_processor(model.config)
    processor.tokenizer = More(tokenizer_object=processor.tokenizer.backend_tokenizer)
    module.write(tmp_path, model, processor, {}, True)
    assert not list(tmp_path.iterdir())


def test_the_command_needs_no_torch_for_it(systems, tmp_path):
    folder, plain = systems["chatml"]
    for number, image in enumerate(IMAGES[:2]):
        image.save(tmp_path / f"{number}.png")

    for names in (["0.png"], ["0.png", "1.png"]):
        command = [sys.executable, "-c", NO_TORCH, "ask", *names, "what?", "--model", str(folder), "--dtype", "float32"]
        command += ["--max-new-tokens", "9"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        wanted = plain.stream([tmp_path / name for name in names], "what?", max_new_tokens=9)
        assert done.stdout == "".join(wanted) + "\n"


def test_captions_of_a_few_photos_need_no_torch_for_it(systems, tmp_path):
    folder, plain = systems["chatml"]
    for number, image in enumerate(IMAGES[:2]):
        image.save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    command = [sys.executable, "-c", NO_TORCH, "caption", "0.png", "--model", str(folder), "--dtype", "float32"]
    command += ["--max-new-tokens", "9"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.caption(tmp_path / "0.png", max_new_tokens=9) + "\n"
    command[4:5] = ["0.png", "1.png", "2.png"]
    command[2] = NO_TORCH.replace("assert not left.code", "assert left.code == 1")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    wanted = plain.caption([tmp_path / "0.png", tmp_path / "1.png"], max_new_tokens=9)
    assert done.stdout == "".join(f"{number}.png: {text}\n" for number, text in enumerate(wanted))
    assert "2.png" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--backend onnx",
        "--device cpu",
        "--dtype bfloat16",
        "--json",
        "--draw drawn.png",
        "--num-beams 2",
        "--do-sample --seed 1",
    ],
)
def test_the_command_takes_the_whole_system_where_that_is_needed(options, systems, tmp_path, monkeypatch, capsys):
    folder, plain = systems["chatml"]
    IMAGES[0].save(tmp_path / "0.png")
    monkeypatch.chdir(tmp_path)
    loaded: list[int] = []
    monkeypatch.setattr(System, "load", lambda _: loaded.append(1) or plain)
    command = f"minigpt4 ask 0.png what? --max-new-tokens 9 --model {folder} --dtype float32 {options}"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert bool(loaded) == (options in ("--device cpu", "--dtype bfloat16", "--do-sample --seed 1"))
    assert Path("drawn.png").exists() == ("--draw" in options)
    said, err = capsys.readouterr()
    assert ("no box in the answer: drawn.png is the photo alone" in err) == ("--draw" in options)
    if "-s" not in options and "beams" not in options:  # greedy
        answer = str(plain.ask("0.png", "what?", max_new_tokens=9))
        assert (json.loads(said)["answer"] if options == "--json" else said.rstrip("\n")) == answer.rstrip()


@pytest.mark.parametrize(("found", "wanted"), [((0, 0, 1), True), ((0, 0, 0), False), ((100, 0, 1), False), (None, False)])
def test_drivers_say_whether_there_is_a_gpu(found, wanted, monkeypatch):
    class Driver:
        def __init__(self, name):
            if found is None:
                raise OSError(name)

        def cuInit(self, _):
            return found[0]

        def cuDeviceGetCount(self, count):
            count._obj.value = found[2]
            return found[1]

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.9.0+cu128")
    assert gpu.may_have_gpu() == wanted
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.9.0+cpu")
    assert not gpu.may_have_gpu()
