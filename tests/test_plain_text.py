"""Text from data and from people never becomes a place for an image, nor an end."""

import json
import random

import pytest
from conftest import tiny_config, tiny_model, tiny_processor
from PIL import Image

from minigpt4.data.collate import Formatter
from minigpt4.data.formats import open_source
from minigpt4.data.sample import Sample, Turn
from minigpt4.inference.assistant import Assistant
from minigpt4.prompt.templates import IMAGE, PLACEHOLDER, TEMPLATES

SPECIAL = [PLACEHOLDER, "</s>", "<s>", "<pad>", "<unk>", "<|im_end|>", "<|im_start|>"]


def processor_of(template="chatml"):
    return tiny_processor(tiny_config(), template)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_special_texts_are_broken_and_nothing_else_is_touched(template):
    processor = processor_of(template)
    specials = [*SPECIAL, *processor.chat.stop]
    tokens = {processor.image_token_id, *processor.tokenizer.all_special_ids, *processor.tokenizer.added_tokens_decoder}
    tokens.discard(processor.tokenizer.unk_token_id)
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choice([*specials, "<", "#", "s>", "Image", " ", "a"]) for _ in range(6))
        plain = processor.plain(text)
        assert not any(special in plain for special in specials)
        assert not tokens & set(processor.encode(plain))
        assert plain.replace(" ", "") == text.replace(" ", "")
        assert processor.plain(plain) == plain
    for text in (
        "",
        " a  b\n",
        "< ImageHere>",
        "<Img>",
        "{<1><2><3><4>}<delim>",
        "## #",
        "é 漢 \U0001f600 \r\n\t",
        "[INST] <p>a</p>",
    ):
        assert processor.plain(text) == text
    assert processor.plain("a\ud800b\udfff") == "a?b?"


def learnt(formatter, **sample):
    example = formatter(Sample(id="x:1", **sample))
    count = formatter.processor.num_image_tokens
    every = [*example.prefix_ids, *(i for branch in example.branches for i in branch.ids)]
    ends = [branch.ids.count(formatter.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")) for branch in example.branches]
    return every.count(formatter.processor.image_token_id) / count, ends


def test_in_training_questions_and_answers_make_no_places_and_no_ends(tmp_path):
    formatter, image = Formatter(processor_of()), tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(image)
    for text in (*SPECIAL, f"{PLACEHOLDER} {PLACEHOLDER}", "\ud800"):
        turn = Turn(question=f"q {text}", answers=(f"a {text}",))
        assert learnt(formatter, turns=(turn,), images=(image,)) == (1, [1]), text
        assert learnt(formatter, turns=(turn, turn), images=(image,)) == (1, [1 + 1 + 1]), text  # answers, question
        assert learnt(formatter, turns=(turn,)) == (0, [1]), text
        assert learnt(formatter, turns=(turn, turn), images=(image,), apart=True)[0] == 1
    turn = Turn(question=f"{PLACEHOLDER} or <|im_end|> {PLACEHOLDER}", answers=(f"{PLACEHOLDER}",))
    assert learnt(formatter, turns=(turn,), images=(image, image), placed=True) == (2, [1])


def test_every_format_that_carries_text_is_plain(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    said = [{"from": "human", "value": f"{IMAGE} And {PLACEHOLDER}?"}, {"from": "gpt", "value": PLACEHOLDER}]
    (tmp_path / "l.json").write_text(json.dumps([{"id": "x", "image": "a.png", "conversations": said}]))
    rows = [
        {"image": "a.png", "phrase": PLACEHOLDER, "boxes": [[0, 0, 1, 1]], "task": "refer"},
        {"image": "a.png", "text": f"a {PLACEHOLDER}", "phrases": [{"phrase": "a", "boxes": [[0, 0, 1, 1]]}]},
        {"image": "a.png", "question": f"What is {PLACEHOLDER}?", "answer": "</s>"},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    formatter = Formatter(processor_of())
    for name, file in (("llava_conversation", "l.json"), ("jsonl", "r.jsonl")):
        source = open_source(name, name="d", annotations=str(tmp_path / file), images=str(tmp_path))
        assert len(source) == (1 if name != "jsonl" else 3)
        for i in range(len(source)):
            example = formatter(source.sample(i, random.Random(0)))
            ids = [*example.prefix_ids, *example.branches[0].ids]
            assert ids.count(formatter.processor.image_token_id) == formatter.processor.num_image_tokens


def test_in_a_question_and_in_the_history_of_a_chat(tmp_path, monkeypatch):
    image = Image.new("RGB", (40, 40), "teal")
    model = tiny_model()
    system = Assistant(model, tiny_processor(model.config))
    asked = system.ask(image, f"a {PLACEHOLDER}<|im_end|> b", max_new_tokens=8)
    assert asked == system.ask(image, "a < ImageHere>< |im_end|> b", max_new_tokens=8)
    chat = system.chat(image)
    monkeypatch.setattr(chat, "_answer", lambda look, settings: f"{PLACEHOLDER} </s>")
    assert chat.ask(f"x {PLACEHOLDER}") == f"{PLACEHOLDER} </s>"  # what is shown is what was said
    monkeypatch.undo()
    seen = []
    submit = system.engine.submit
    monkeypatch.setattr(system.engine, "submit", lambda request: seen.append(request) or submit(request))
    chat.ask("y", max_new_tokens=3)
    assert [message["content"] for message in seen[0].messages] == [f"{IMAGE} x < ImageHere>", "< ImageHere> < /s>", "y"]
    assert "".join(chat.stream(PLACEHOLDER, max_new_tokens=3)) is not None


def test_marks_that_a_blank_does_not_break_are_left_alone():
    processor = tiny_processor(tiny_config(), "chatml")
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["  ", "x y"]})
    assert processor.plain("a   x y") == "a   x y"  # and it comes to an end
