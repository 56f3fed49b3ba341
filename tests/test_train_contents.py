"""What datasets may hold and a recipe cannot learn from: said with file and line before it is a fault somewhere inside."""

import json

import pytest
from conftest import tiny_model, tiny_processor
from test_train import recipe_of, run, world  # noqa: F401  (a fixture)
from transformers import GPT2Config, OPTConfig

from minigpt4.errors import UserError
from minigpt4.train.self_critical import SelfCritic

IMAGE = {"image": "shapes-0.png"}
TALK = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}] * 2
LEARNT = {
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2),
    "opt": OPTConfig(
        vocab_size=128,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
    ),
}


def rows(world, name, *rows, **options):
    path = world / "data" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"format": "jsonl", "annotations": str(path), **options}]


def unmeasured(world, output, **changes):
    return recipe_of(world, output, **{"steps": 2, "validation": {"every": 100}, "trained__lora": None} | changes)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**IMAGE, "conversation": TALK}, "this has 2 questions"),
        ({"question": "a?", "answer": "b c"}, "this has none"),
    ],
)
def test_rows_that_no_reward_is_for_are_named(world, tmp_path, row, says):
    plain = {**IMAGE, "answers": ["a", "b"]}
    data = rows(world, "unrewarded", plain, row, reward="cider")
    given = unmeasured(world, tmp_path / "out", data__datasets=data, data__mixing="step")
    with pytest.raises(UserError, match=rf"unrewarded\.jsonl:2: a reward is for .*{says}"):
        run(given)


@pytest.mark.parametrize("kind", LEARNT)
@pytest.mark.parametrize("pack", [True, False])
def test_examples_beyond_the_learnt_positions_are_named(world, tmp_path, kind, pack):
    model = tiny_model(text_config=LEARNT[kind])
    model.save_pretrained(tmp_path / "base")
    tiny_processor(model.config).save_pretrained(tmp_path / "base")
    data = rows(world, "long", {**IMAGE, "question": "?", "answer": "word " * 60})
    given = unmeasured(world, tmp_path / "out", data__datasets=data, data__pack=pack, model={"base": str(tmp_path / "base")})
    with pytest.raises(UserError, match=r"long\.jsonl:1: takes \d+ tokens, but this language model has 128 positions"):
        run(given)
    given["data"]["max_answer_tokens"] = 40
    run(given)


def test_a_reward_s_captions_end_as_the_recipe_says(world, tmp_path, monkeypatch):
    """They ended as the chat format does, whatever the other answers of the recipe end with."""
    ends = []
    sample = SelfCritic._sample

    def seen(self, items, stage, device):
        ends.append(self.processor.tokenizer.decode(self.end))
        return sample(self, items, stage, device)

    monkeypatch.setattr(SelfCritic, "_sample", seen)
    data = rows(world, "captions", {**IMAGE, "task": "caption", "answers": ["a b", "b a"]}, reward="cider")
    run(unmeasured(world, tmp_path / "out", data__datasets=data, data__mixing="step", data__end="#"))
    assert ends == ["#", "#"]


def test_a_caption_is_scored_without_what_ends_it():
    model = tiny_model()
    processor = tiny_processor(model.config)
    critic = SelfCritic(model, processor, None, [["a"]], end="#")
    ids = processor.tokenizer("a b#", add_special_tokens=False)["input_ids"]
    assert critic._text(ids) == "a b endofcaption"
    assert critic._text(ids[:-1]) == "a b"
    assert SelfCritic(model, processor, None, [["a"]], end="")._text(ids) == "a b#"
