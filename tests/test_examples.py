"""Sequence building: what is learnt is the answers and their ends, and nothing else, whatever is cut."""

import pytest
from conftest import tiny_config, tiny_processor
from hypothesis import given
from hypothesis import strategies as st

from minigpt4.data.examples import IGNORE, build_example
from minigpt4.errors import UserError
from minigpt4.prompt.templates import IMAGE, PLACEHOLDER, TEMPLATES

CONFIG = tiny_config()
IMAGE_IDS = [CONFIG.image_token_id] * CONFIG.num_image_tokens


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(CONFIG, "minigpt-v2")


def ids(processor, text):
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_one_question_several_answers(processor):
    prompt = processor.chat.training_prompt(f"{IMAGE} what?")
    example = build_example(processor, prompt, ["a dog", "one"])
    assert example.prefix_ids == [1, *ids(processor, "[INST] <Img>"), *IMAGE_IDS, *ids(processor, "</Img> what? [/INST]")]
    assert [b.ids for b in example.branches] == [[*ids(processor, "a dog"), 2], [*ids(processor, "one"), 2]]
    assert all(b.labels == b.ids and not b.hidden for b in example.branches)
    assert example.supervised == len("a dog") + len("one") + 2


def test_a_conversation_learns_its_answers_alone(processor):
    template = processor.chat
    later = [(template.training_prompt("and?", first=False), "no"), (template.training_prompt("so", first=False), "")]
    example = build_example(processor, template.training_prompt("what"), ["yes"], later)
    (branch,) = example.branches
    spans = [
        ("yes</s>", True),
        ("<s>[INST] and? [/INST]", False),
        ("no</s>", True),
        ("<s>[INST] so [/INST]", False),
        ("</s>", True),
    ]
    assert branch.ids == [i for text, _ in spans for i in ids(processor, text)]
    assert branch.labels == [i if learnt else IGNORE for text, learnt in spans for i in ids(processor, text)]


def test_a_later_turn_may_show_a_image(processor):
    example = build_example(processor, "a", ["b"], [(f"c{PLACEHOLDER}", "d")])
    labelled = dict(zip(example.branches[0].ids, example.branches[0].labels, strict=True))
    assert example.branches[0].ids.count(CONFIG.image_token_id) == CONFIG.num_image_tokens
    assert labelled[CONFIG.image_token_id] == IGNORE


@given(st.lists(st.text("ab $", max_size=9), min_size=1, max_size=4), st.integers(1, 12))
def test_answer_tokens_are_counted_and_capped(answers, most):
    processor = tiny_processor(CONFIG, "minigpt-v2")
    example = build_example(processor, "q", answers, max_txt_len=most)
    for answer, branch in zip(answers, example.branches, strict=True):
        assert branch.labels == branch.ids == [*ids(processor, answer), 2][:most]


@pytest.mark.parametrize("template", [*TEMPLATES, "stage 1"])
def test_exactly_one_beginning(template):
    processor = tiny_processor(CONFIG, "chatml" if template == "stage 1" else template)
    if template == "stage 1":
        example = build_example(processor, PLACEHOLDER, ["a"], end="\n", bos=True)
        assert example.prefix_ids == [1, *IMAGE_IDS]
        assert example.branches[0].ids == ids(processor, "a\n")
        return
    for question in (processor.chat.training_prompt("x"), processor.chat.render([{"role": "user", "content": "x"}])):
        assert build_example(processor, question, ["a"]).prefix_ids[:2].count(1) == int(processor.chat.add_bos)


def test_chatml_turns_join_as_the_chat_renders_them():
    processor = tiny_processor(CONFIG, "chatml")
    template = processor.chat
    example = build_example(processor, template.training_prompt("a"), ["b"], [(template.training_prompt("c", False), "d")])
    conversation = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    rendered = ids(processor, template.render(conversation, open_turn=False).removesuffix("\n"))
    assert example.prefix_ids + example.branches[0].ids == rendered


def test_limits_never_cut_a_image(processor):
    prompt = f"xx{PLACEHOLDER}yyyy"
    assert build_example(processor, prompt, ["a"], max_context_len=6 + 2).prefix_ids == [
        1, *ids(processor, "xx"), *IMAGE_IDS, *ids(processor, "yy")
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"max_context_len 5 would cut into a picture.*takes 6 tokens"):
        build_example(processor, prompt, ["a"], max_context_len=5)
    with pytest.raises(UserError, match="max_txt_len 4"):
        build_example(processor, "a", ["b"], [(prompt, "c")], max_txt_len=4)


def test_a_pad_string_in_an_answer_is_an_ordinary_token_unless_official_asks(processor):
    pad = ids(processor, "$")[0]
    plain = build_example(processor, "q", ["a$b"]).branches[0]
    assert plain.labels == plain.ids
    official = build_example(processor, "q", ["a$b"], official_pad=pad).branches[0]
    assert official.ids == plain.ids
    assert official.labels == [IGNORE if i == pad else i for i in plain.ids]
    assert not official.hidden
    turns = build_example(processor, "q", ["a$b"], [("$?", "c")], official_pad=pad).branches[0]
    assert turns.hidden == (1, 4)
    assert turns.labels[1] == pad


def test_misuse_is_refused(processor):
    with pytest.raises(UserError, match="one answer to each question"):
        build_example(processor, "q", ["a", "b"], [("c", "d")])
    with pytest.raises(UserError, match="at least one answer"):
        build_example(processor, "q", [])
