"""Questions about one picture, side by side: what is learnt is what each of them alone teaches."""

import json
import random
from dataclasses import replace

import pytest
import shapes
import torch
from conftest import tiny_processor
from test_collate import batch_of, loss_and_gradient

from minigpt4.data.collate import Collator, Formatter, Reader
from minigpt4.data.formats import build_source
from minigpt4.data.group import Together
from minigpt4.data.sample import Sample, Turn, ask
from minigpt4.errors import UserError
from minigpt4.media.images import image_digest, open_image


@pytest.fixture
def images(tmp_path):
    shapes.write(tmp_path, 3)
    return sorted(tmp_path.glob("*.png"))


def aside(images):
    turns = (*ask("colour?", "red"), *ask("where?", "left", "on the left"), *ask("colo", "u"), *ask("where?", "right"))
    return Sample(images=(images[0],), turns=turns, apart=True, id="aside")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("pack", [True, False])
def test_side_by_side_teaches_what_each_question_teaches_alone(model, images, pack, attention):
    model.set_attn_implementation({"text_config": attention})
    together = loss_and_gradient(model, batch_of(model, [aside(images)], pack=pack))
    alone = [replace(aside(images), turns=(turn,), apart=False) for turn in aside(images).turns]
    singles = [loss_and_gradient(model, batch_of(model, [one], pack=False)) for one in alone]
    for got, expected in zip(together, [sum(values) for values in zip(*singles, strict=True)], strict=True):
        torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(expected), atol=2e-4, rtol=2e-5)


def test_the_image_is_read_once(model, images):
    processor = tiny_processor(model.config)
    item = Reader([], Formatter(processor)).item(aside(images))
    batch = Collator(processor, pack=True, row_tokens=400)([item])
    assert batch.inputs["input_ids"].eq(model.config.image_token_id).sum() == model.config.num_image_tokens
    assert batch.supervised == len("red") + len("left") + len("on the left") + len("u") + len("right") + 5  # and five ends


def test_samples_are_grouped_by_image(images, tmp_path):
    rows = [{"image": images[i % 2].name, "question": f"number {i}?", "answer": str(i)} for i in range(7)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Together(build_source("jsonl", annotations=str(tmp_path / "rows.jsonl")), 3)
    found = [source.sample(i, random.Random(0)) for i in range(len(source))]
    assert [[turn.answers[0] for turn in sample.turns] for sample in found] == [["0", "2", "4"], ["6"], ["1", "3", "5"]]
    assert [sample.images[0] for sample in found] == [source.images(i)[0] for i in range(3)]
    assert source.where(2).endswith("rows.jsonl:2")


def test_images_stored_in_rows_are_told_apart_by_what_they_show(images, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    which = [0, 1, 0, 2, 1, 0]
    rows = {"image": [images[i].read_bytes() for i in which], "question": [f"{i}?" for i in which]}
    pq.write_table(pa.table(rows | {"answer": [str(i) for i in which]}), tmp_path / "rows.parquet")
    source = Together(build_source("parquet", annotations=str(tmp_path / "rows.parquet")), 5)
    found = [source.sample(i, random.Random(0)) for i in range(len(source))]
    assert [[turn.answers[0] for turn in sample.turns] for sample in found] == [["0"] * 3, ["1"] * 2, ["2"]]
    for sample, image in zip(found, images, strict=True):
        assert image_digest(sample.images[0]) == image_digest(open_image(image))


def test_what_cannot_be_side_by_side_is_said(images, tmp_path):
    said = [("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d")]
    talk = [{"role": role, "content": text} for role, text in said]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"image": images[0].name, "conversation": talk}) + "\n")
    with pytest.raises(UserError, match="talk:0: together is for single questions, this is a conversation"):
        Together(build_source("jsonl", name="talk", annotations=str(tmp_path / "talk.jsonl")), 2).sample(0, random.Random(0))
    with pytest.raises(ValueError, match="before the questions"):
        Sample(images=(images[0],), turns=(Turn(question="<Img><ImageHere></Img> a", answers=("b",)),), apart=True, placed=True)


@pytest.mark.parametrize("first", [0, 1])
def test_a_question_that_says_where_its_image_stands_is_no_part_of_a_group(images, tmp_path, first):
    """Whichever came first: the group took the word of its first sample alone, and of the other's place made text."""
    rows = [{"image": images[0].name, "question": text, "answer": "x"} for text in ("What is in <ImageHere>?", "What is this?")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (rows[first], rows[1 - first])))
    source = Together(build_source("jsonl", annotations=str(tmp_path / "rows.jsonl")), 2)
    with pytest.raises(UserError, match=rf"jsonl:{first}: together shows images before the questions"):
        source.sample(0, random.Random(0))
