"""Backends beside torch: which is taken, what it is made of, that it is made once, and that it says the same."""

import importlib.util
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapes
import torch
from conftest import tiny_folder, tiny_llama, tiny_model, tiny_processor
from transformers import MistralConfig

from minigpt4 import UserError
from minigpt4.checkpoints import loading, onnx_parts
from minigpt4.checkpoints.loading import save_trained
from minigpt4.checkpoints.onnx_graph import BLOCK, GRAPH, in_blocks, unsupported, write_graph
from minigpt4.checkpoints.onnx_parts import prepared_graph
from minigpt4.cli.batch import write_captions
from minigpt4.cli.dialogue import _made_by
from minigpt4.cli.endpoints import Account, Who
from minigpt4.cli.options import Backend, Bits, Dtype, System
from minigpt4.engine.onnx_backend import OnnxBackend
from minigpt4.engine.onnx_session import session
from minigpt4.inference import backends
from minigpt4.inference.assistant import Assistant, load
from minigpt4.inference.backends import way_of
from minigpt4.io import cores
from minigpt4.jobs.made_by import signature

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
WIDE = {"text_config": tiny_llama(hidden_size=64, intermediate_size=96, tie_word_embeddings=True)}
IMAGES = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(4))]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIGPT4_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return tiny_folder(tmp_path / "system", **WIDE)


def answers(system: Assistant, **settings) -> list[str]:
    items = [(image, "why? " * (1 + i)) for i, image in enumerate(IMAGES)]
    return [str(answer) for answer in system.ask_many(items, max_new_tokens=12, min_new_tokens=12, **settings)]


def test_onnx_says_what_torch_says(folder):
    plain, fast = load(folder, backend="torch"), load(folder, dtype="float32")
    assert (plain.engine.backend.name, fast.engine.backend.name) == ("torch", "onnx")
    assert answers(fast) == answers(plain)
    assert answers(fast, num_beams=3) == answers(plain, num_beams=3)
    sampled = {"temperature": 1.2, "seed": 4}
    assert answers(fast, **sampled) == answers(plain, **sampled)
    given = ["a", "many words", "no"]
    for one, other in zip(plain.score(IMAGES[0], "what?", given), fast.score(IMAGES[0], "what?", given), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_who_names_no_precision_gets_8_bits_and_the_rows_say_so(folder):
    def sure(**how):
        return [score.logprob for score in load(folder, **how).score(IMAGES[0], "what?", ["a", "many words"])]

    default, whole = sure(), sure(backend="torch")
    assert default == sure(backend="onnx") == sure(backend="onnx", quantize="8bit")
    assert default != pytest.approx(whole, abs=1e-4)
    assert sure(dtype="float32") == pytest.approx(whole, abs=1e-4)
    onnx = {"backend": "onnx", "quantize": "8bit"}
    assert System(str(folder)).kept_as == System(str(folder), backend=Backend.onnx).kept_as == onnx
    assert System(str(folder), backend=Backend.torch).kept_as == {"backend": "torch"}
    assert System(str(folder), dtype=Dtype.float32).kept_as == {"dtype": "float32"}
    assert System(str(folder), device="cpu").kept_as == onnx
    assert System(str(folder), quantize=Bits.eight).kept_as == {"quantize": "8bit"}  # torch's, which are others


@pytest.mark.parametrize("bits", [8, 4])
def test_few_bits_are_what_they_are_said_to_be(bits, tmp_path):
    """The graph in few bits against the float model with the numbers that its blocks stand for."""
    model = tiny_model(**WIDE)
    weights = {name: weight.numpy().copy() for name, weight in model.language_model.state_dict().items()}
    write_graph(weights, model.config.text_config, bits, tmp_path)
    with torch.no_grad():
        for name, module in model.language_model.named_modules():
            if isinstance(module, torch.nn.Linear):
                own = 8 if name == "lm_head" else bits
                stored, scales = in_blocks(module.weight.numpy(), own)
                if own == 4:
                    stored = np.stack([stored & 15, stored >> 4], -1).reshape(*stored.shape[:2], BLOCK)
                meant = (stored.astype(np.float32) - 2 ** (own - 1)) * scales.reshape(*stored.shape[:2], 1)
                meant = torch.from_numpy(meant).reshape(module.weight.shape)
                step = torch.from_numpy(np.abs(scales)).repeat_interleave(BLOCK).reshape(module.weight.shape)
                apart = (meant - module.weight).abs()
                assert bool((apart <= step * 1.001).all())  # one end of the range has no number of its own
                assert bool((apart <= step / 2 * 1.001).float().mean() > 0.95)
                module.weight = torch.nn.Parameter(meant)
        feed = torch.randn(1, 9, 64)
        wanted = model.language_model(inputs_embeds=feed).logits[0, -1]
    backend = OnnxBackend(tmp_path / GRAPH, model, 1)
    got = backend.read(backend.new_block(1, 12), feed, 0, [9])[0]
    assert (got - wanted).norm() < 0.03 * wanted.norm()  # what comes in is rounded to 8 bits too


def test_it_is_made_once_and_again_when_it_has_to_be(folder, monkeypatch, tmp_path):
    model, made = tiny_model(**WIDE), []

    def language_model(_):
        made.append(1)
        return model.language_model

    def graph(bits=None):
        return prepared_graph([folder], model.config.text_config, bits, language_model)

    file = graph()
    assert graph() == file
    assert len(made) == 1
    assert graph("8bit") != file
    assert len(made) == 2
    data = file.with_name(f"{GRAPH}.data")
    data.write_bytes(data.read_bytes()[:-1])  # damaged
    left_over = file.parent.parent / f".{file.parent.name}-killed"
    left_over.mkdir()
    assert graph() == file
    assert len(made) == 3
    assert not left_over.exists()
    os.utime(folder / "model.safetensors", (1, 1))  # other weights
    graph()
    assert len(made) == 4
    monkeypatch.setattr(onnx_parts, "write_graph", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    os.utime(folder / "model.safetensors", (2, 2))
    with pytest.raises(UserError, match="No space left on device.*MINIGPT4_CACHE"):
        graph()
    monkeypatch.undo()


def test_no_room_for_it_is_no_reason_not_to_answer(folder, monkeypatch, caplog):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(onnx_parts, "write_graph", lambda *_: (_ for _ in ()).throw(full))
    assert load(folder).engine.backend.name == "torch"
    assert "No space left on device" in caplog.text
    assert "torch does it now" in caplog.text
    with pytest.raises(UserError, match="No space left on device"):
        load(folder, backend="onnx")


def test_a_graph_that_cannot_be_run_is_said_in_one_line_and_torch_answers(folder, monkeypatch, caplog):
    load(folder)
    plain = backends.load_system

    def meanwhile(*given, **named):
        """Another process makes room in the cache."""
        shutil.rmtree(onnx_parts.prepared_folder(folder, "8bit"))
        return plain(*given, **named)

    monkeypatch.setattr(backends, "load_system", meanwhile)
    assert load(folder).engine.backend.name == "torch"
    assert "ONNX Runtime" in caplog.text
    monkeypatch.setattr(backends, "load_system", plain)
    load(folder)
    graph = onnx_parts.prepared_folder(folder, "8bit") / GRAPH
    graph.write_bytes(b"no graph")
    with pytest.raises(UserError, match="cannot run it .*; remove .*, or take backend torch") as told:
        session(graph, 1)
    assert "\n" not in str(told.value)


def test_rows_are_never_torch_s_where_they_say_onnx(folder, monkeypatch, tmp_path):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(onnx_parts, "write_graph", lambda *_: (_ for _ in ()).throw(full))
    IMAGES[0].save(tmp_path / "0.png")
    system = System(str(folder))
    assert system.load().engine.backend.name == "torch"
    with pytest.raises(UserError, match="No space left on device.*backend torch needs none"):
        write_captions(system, [tmp_path / "0.png"], tmp_path / "out.jsonl", 1, {"max_new_tokens": 3})
    with pytest.raises(UserError, match="No space left on device"):
        Who(system, Account(), {}).load()
    assert not (tmp_path / "out.jsonl").exists() or not (tmp_path / "out.jsonl").read_text()


def test_each_of_a_dialogue_s_systems_is_labelled_by_its_own_way(folder, tmp_path):
    other = tiny_folder(tmp_path / "other", text_config=tiny_llama(hidden_size=32))  # heads of 8 numbers: torch's
    by = _made_by(System(str(folder)), {"questioner": str(other), "answerer": None}, {}, "wording")
    asks, answers = re.fullmatch("questioner=(.*) answerer=(.*) prompts=.*", by).groups()
    assert asks == signature(str(other), {})
    assert answers == signature(str(folder), {"backend": "onnx", "quantize": "8bit"})


def test_who_names_onnx_gets_it_beside_a_gpu_too(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert way_of(folder).device.type == "cuda"
    way = way_of(folder, backend="onnx")
    assert (way.device.type, way.backend, way.quantize) == ("cpu", "onnx", "8bit")
    with pytest.raises(UserError, match="backend onnx runs on the CPU"):
        way_of(folder, backend="onnx", device_map="auto")


def test_what_lies_on_the_hub_is_told_by_its_commit_wherever_one_stands(folder, monkeypatch, tmp_path):
    model, made, commit = tiny_model(**WIDE), [], ["one"]
    monkeypatch.setattr(onnx_parts, "commit_of", lambda name: f"{name} {commit[0]}")

    def graph():
        parts = [folder, Path("owner/name")]
        return prepared_graph(parts, model.config.text_config, None, lambda _: made.append(1) or model.language_model)

    graph()
    monkeypatch.chdir(tmp_path)
    graph()
    assert len(made) == 1
    commit[0] = "two"
    graph()
    assert len(made) == 2


def test_a_link_to_nothing_beside_the_weights_is_no_obstacle(folder):
    (folder / ".#config.json").symlink_to("user@host.1")  # as Emacs leaves beside a file that is edited
    assert load(folder).engine.backend.name == "onnx"
    assert onnx_parts.prepared_folder(folder, "8bit") is not None


def test_the_cache_keeps_the_graphs_that_were_used_last_as_far_as_there_is_room(tmp_path, monkeypatch):
    model = tiny_model(**WIDE)

    def graph(number):
        system = tmp_path / str(number)
        system.mkdir(exist_ok=True)
        return prepared_graph([system], model.config.text_config, None, lambda _: model.language_model).parent

    made = [graph(number) for number in range(4)]
    assert all(folder.is_dir() for folder in made)
    size = sum(file.stat().st_size for file in made[0].iterdir())
    monkeypatch.setattr(onnx_parts, "_KEPT", int(4.5 * size))
    for number, folder in enumerate(made):
        os.utime(folder, (number, number))
    assert graph(0) == made[0]  # used again
    assert graph(4).is_dir()
    assert [folder.is_dir() for folder in made] == [True, False, True, True]


def test_what_cannot_be_is_refused_in_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no backend 'vllm'; there are auto, torch, onnx"):
        load(folder, backend="vllm")
    for backend in ("auto", "torch", "onnx"):
        with pytest.raises(UserError, match="stored in 8bit or 4bit, not 'float32'"):
            load(folder, backend=backend, quantize="float32")
    with pytest.raises(UserError, match="official behaviour is torch's"):
        load(folder, backend="onnx", official=True)
    with pytest.raises(UserError, match="leave device and dtype out"):
        load(folder, backend="onnx", dtype="bfloat16")
    small = {k: v for k, v in tiny_llama().to_dict().items() if k not in ("model_type", "architectures", "dtype")}
    other = tiny_folder(tmp_path / "mistral", text_config=MistralConfig(**small))
    with pytest.raises(UserError, match="of the Llama type, and this one is a mistral"):
        load(other, backend="onnx")
    assert load(other).engine.backend.name == "torch"  # where nothing was said, what can be done is done
    assert load(folder, dtype="bfloat16").engine.backend.name == "torch"
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else found(name, *a))
    with pytest.raises(UserError, match=r"pip install 'minigpt4\[cpu\]'"):
        load(folder, backend="onnx")
    assert load(folder).engine.backend.name == "torch"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "scales its rotary"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "another activation"),
        ({"hidden_size": 32}, "multiple of 16 numbers, and these have 8"),
    ],
)
def test_language_models_without_a_graph_say_why(changes, why):
    assert why in unsupported(tiny_llama(**{"hidden_size": 64} | changes))
    assert unsupported(tiny_llama(hidden_size=64)) is None


def test_cores_are_those_that_may_be_used(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    monkeypatch.setattr(cores, "_container_limit", lambda: None)
    assert cores.usable_cores() == 4
    monkeypatch.setattr(cores, "_container_limit", lambda: 2)
    assert cores.usable_cores() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores.usable_cores() == 3
    monkeypatch.undo()
    for text, limit in (("max 100000", None), ("150000 100000", 2), ("50000 100000", 1), ("nonsense", None)):
        (tmp_path / "cpu.max").write_text(text)
        assert cores._container_limit(tmp_path) == limit


def test_torch_gets_its_weights_when_it_needs_them(tmp_path, monkeypatch):
    """Of a trained folder the language model is read by ONNX Runtime alone, until somebody asks for torch's."""
    parts = tiny_model(**WIDE)
    parts.vision_tower.save_pretrained(tmp_path / "vision")
    parts.language_model.save_pretrained(tmp_path / "llm")
    tiny_processor(parts.config).tokenizer.save_pretrained(tmp_path / "llm")
    parts.config.vision_source, parts.config.text_source = str(tmp_path / "vision"), str(tmp_path / "llm")
    save_trained(parts, tiny_processor(parts.config), tmp_path / "trained")
    plain, fast = load(tmp_path / "trained", backend="torch"), load(tmp_path / "trained", dtype="float32")
    read = []
    fill = loading.fill_language_model
    monkeypatch.setattr(backends, "fill_language_model", lambda *given: read.append(1) or fill(*given))
    assert answers(fast) == answers(plain)
    assert answers(fast, num_beams=3) == answers(plain, num_beams=3)
    assert not read
    both = zip(plain.model.state_dict().items(), fast.model.state_dict().items(), strict=True)
    assert read == [1]
    assert all(one == other and torch.equal(weight, same) for (one, weight), (other, same) in both)
