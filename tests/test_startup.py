"""What is imported when: nothing heavy before it is needed, and nothing broken by the quick way."""

import os
import random
import subprocess
import sys

import pytest
import shapes
import torch
from conftest import quick_folder, tiny_llama
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, Qwen2Config

import minigpt4
from minigpt4.checkpoints.loading import _llm_in_one_file, load_system
from minigpt4.model import MiniGPT4ForConditionalGeneration

HEAVY = ("torch", "transformers", "numpy", "peft")


def run(script, *arguments, cwd=None):
    """A script in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={key: os.environ[key] for key in os.environ if key != "TORCHDYNAMO_DISABLE"} | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny system that is loaded the quick way, and a picture."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    quick_folder(folder / "base")
    shapes.draw("red", "disc", "top left", random.Random(0)).save(folder / "0.png")
    return folder


COMMAND = """
import io, sys
from minigpt4 import cli

def command(*arguments, stdin=""):
    sys.argv, sys.stdin = ["minigpt4", *arguments], io.StringIO(stdin)
    try:
        cli.main()
    except SystemExit as left:
        return left.code or 0
"""


def test_nothing_heavy_before_it_is_needed():
    said = run(
        COMMAND
        + f"""
import minigpt4
assert minigpt4.__version__
assert "load" in dir(minigpt4)
for name in ("ask", "caption", "chat", "train", "evaluate", "data"):
    assert command(name, "--help") == 0
assert command("--help") == command("--version") == 0
assert command("ask") == command("ask", "--nope") == 2
heavy = [name for name in {HEAVY} if name in sys.modules]
assert not heavy, heavy
assert command("ask", "nowhere.jpg", "?") == command("caption", "nowhere.jpg") == command("chat", "nowhere.jpg") == 2
assert command("ask", "--input", "nowhere.jsonl", "--output", "x.jsonl") == 2
heavy = [name for name in ("torch", "transformers") if name in sys.modules]
assert not heavy, heavy
"""
    )
    assert "Usage: minigpt4" in said


VERBS = {"ask": ["ask", "0.png", "hm?"], "refer": ["refer", "0.png", "it"]}  # all load as one of these does


@pytest.mark.parametrize("verb", VERBS)
def test_commands_start_the_quick_way_and_break_nothing(verb, world):
    run(
        COMMAND
        + """
verb = sys.argv[1:]
assert command(*verb, "--model", "base", "--max-new-tokens", "5", stdin="hm?\\n") == 0
unused = [name for name in ("torch._dynamo", "torch.distributed.tensor", "sympy") if name in sys.modules]
assert not unused, unused
if verb[0] == "ask":  # afterwards everything is as it was
    import torch
    assert torch.distributed.is_available()
    assert torch.compiler.disable.__module__ == "torch.compiler"
    seen = []
    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward
    doubled = torch.compile(lambda x: x * 2, backend=backend)(torch.ones(3))
    assert doubled.tolist() == [2, 2, 2] and len(seen) == 1
    import torch._dynamo
    assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.__file__
    from torch.distributed.tensor import DTensor
    from transformers import AutoModelForCausalLM, Trainer
""",
        *VERBS[verb],
        cwd=world,
    )


@pytest.fixture(scope="module")
def plain(world):
    """The same question in Python, where nothing is done to the imports: here, that is."""
    assert sys.modules["torch._dynamo"].__file__, "the real one"
    return minigpt4.load(world / "base", dtype="float32").ask(world / "0.png", "hm?") + "\n"


@pytest.mark.parametrize(
    "obstacle",
    [
        "startup._stand_in = lambda: (_ for _ in ()).throw(ImportError('no such compiler'))",
        "startup._as_it_is = lambda *a, **k: (_ for _ in ()).throw(RuntimeError('in the middle'))",
    ],
    ids=["at the beginning", "in the middle"],
)
def test_where_the_quick_way_fails_the_plain_way_is_taken(obstacle, world, plain):
    said = run(
        COMMAND
        + f"""
from minigpt4.cli import fast_import as startup
{obstacle}
assert command("ask", "0.png", "hm?", "--model", "base", "--dtype", "float32") == 0
import torch._dynamo
assert torch._dynamo.__file__, "the real one"
assert torch.distributed.is_available()
""",
        cwd=world,
    )
    assert said == plain


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
LLMS = {
    "llama": tiny_llama(),
    "llama, tied": tiny_llama(tie_word_embeddings=True),
    "qwen2": Qwen2Config(vocab_size=128, **SMALL),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=256),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", LLMS)
def test_a_llm_read_the_quick_way_is_the_same(kind, dtype, tmp_path):
    AutoModelForCausalLM.from_config(LLMS[kind]).save_pretrained(tmp_path)
    quick = _llm_in_one_file(tmp_path, dtype)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    for kinds in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(quick, kinds)()), dict(getattr(plain, kinds)())
        assert list(ours) == list(theirs)
        for name, tensor in theirs.items():
            assert tensor.dtype == ours[name].dtype
            assert torch.equal(tensor, ours[name]), name
    assert quick.config.to_dict() == plain.config.to_dict()
    assert quick.generation_config.to_dict() == plain.generation_config.to_dict()
    assert quick.training == plain.training
    tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert (quick.get_output_embeddings().weight is quick.get_input_embeddings().weight) == tied
    ids = torch.randint(0, 128, (2, 9))
    assert torch.equal(quick(ids).logits, plain(ids).logits)
    quick.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(load_file(tmp_path / "model.safetensors"))


def test_a_llm_stored_otherwise_is_left_to_the_library(tmp_path):
    llm = AutoModelForCausalLM.from_config(tiny_llama())
    llm.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert not (tmp_path / "sharded" / "model.safetensors").exists()
    assert _llm_in_one_file(tmp_path / "sharded", torch.float32) is None
    assert _llm_in_one_file(tmp_path / "nowhere", torch.float32) is None
    llm.save_pretrained(tmp_path / "renamed")
    file = tmp_path / "renamed" / "model.safetensors"
    stored = load_file(file)
    for changed in (
        {f"base.{name}": tensor for name, tensor in stored.items()},
        stored | {"rotary.inv_freq": torch.ones(4)},
        {name: tensor for name, tensor in stored.items() if name != "model.norm.weight"},
        stored | {"lm_head.weight": torch.ones(127, 32)},
    ):
        save_file(changed, file, metadata={"format": "pt"})
        assert _llm_in_one_file(tmp_path / "renamed", torch.float32) is None


def test_the_whole_system_is_the_same_too(world, monkeypatch):
    quick, _ = load_system(world / "base", dtype=torch.float32)
    monkeypatch.setattr("minigpt4.checkpoints.loading._llm_in_one_file", lambda *_: None)
    plain, _ = load_system(world / "base", dtype=torch.float32)
    assert isinstance(quick, MiniGPT4ForConditionalGeneration)
    weights = plain.state_dict()
    assert list(weights) == list(quick.state_dict())
    for name, tensor in quick.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
