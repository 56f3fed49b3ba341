"""Packing, shared prefixes, pictures: a packed batch teaches exactly what its samples teach one by one."""

from dataclasses import replace

import pytest
import shapes
import torch
from conftest import tiny_model, tiny_processor

from minigpt4.data.collate import Collator, Formatter, Reader
from minigpt4.data.examples import IGNORE
from minigpt4.data.sample import Sample, Turn, ask
from minigpt4.errors import UserError


@pytest.fixture
def images(tmp_path):
    shapes.write(tmp_path, 4)
    return sorted(tmp_path.glob("*.png"))


def samples(images):
    """One of each kind: several answers, one answer, a conversation, two pictures, none."""
    talk = (Turn(question="who?", answers=("a disc",)), Turn(question="where is it?", answers=("left",)))
    return [
        Sample(images=(images[0],), turns=ask("[caption]", "red disc", "a disc that is red", "disc"), id="captions"),
        Sample(images=(images[1],), turns=ask("colour?", "blue"), id="question"),
        Sample(images=(images[2],), turns=talk, id="talk"),
        Sample(images=tuple(images[:2]), turns=ask("which is round?", "the first"), id="two"),
        Sample(turns=ask("say a", "a"), id="text"),
    ]


def batch_of(model, chosen, pack, row_tokens=160, **how):
    processor = tiny_processor(model.config)
    reader = Reader([], Formatter(processor, **how))
    return Collator(processor, pack=pack, row_tokens=row_tokens)([reader.item(sample) for sample in chosen])


def loss_and_gradient(model, batch):
    model.zero_grad()
    loss = model(**batch.inputs, num_items_in_batch=1).loss
    loss.backward()
    weights = (model.projection.weight, model.language_model.model.layers[0].mlp.up_proj.weight)
    return loss.item(), *(torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("row_tokens", [8, 160, 4000])
def test_packed_equals_unpacked_equals_one_by_one(model, images, attention, row_tokens):
    model.set_attn_implementation({"text_config": attention})
    packed = batch_of(model, samples(images), pack=True, row_tokens=row_tokens)
    plain = batch_of(model, samples(images), pack=False)
    assert packed.supervised == plain.supervised
    singles = [loss_and_gradient(model, batch_of(model, [one], pack=False)) for one in samples(images)]
    summed = [sum(values) for values in zip(*singles, strict=True)]
    for batch in (packed, plain):
        for got, expected in zip(loss_and_gradient(model, batch), summed, strict=True):
            torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(expected), atol=2e-4, rtol=2e-5)


def test_packing_leaves_little_padding(images):
    model = tiny_model()
    many = samples(images) * 8
    packed, plain = batch_of(model, many, True, 512), batch_of(model, many, False)
    padding = 1 - packed.tokens / packed.inputs["input_ids"].numel()
    assert padding < 0.15 < 1 - plain.tokens / plain.inputs["input_ids"].numel()
    assert packed.tokens < plain.tokens  # three captions of a picture share it


def test_neighbours_in_a_row_do_not_see_each_other(images):
    """Another neighbour, or another answer beside, changes nothing about what is said of a sample."""
    model = tiny_model()

    def logits_of_first(second, answers):
        first = Sample(images=(images[0],), turns=ask("[caption]", "red disc", *answers), id="first")
        other = Sample(images=(images[1],), turns=ask(second, "x" * 3), id="second")
        batch = batch_of(model, [first, other], pack=True, row_tokens=4000)
        assert len(batch.inputs["input_ids"]) == 1
        where = batch.inputs["labels"][0].ne(IGNORE).nonzero()[:8, 0] - 1
        return model(**{k: v for k, v in batch.inputs.items() if k != "labels"}).logits[0, where]

    base = logits_of_first("colour?", ["disc!"])
    torch.testing.assert_close(logits_of_first("where!!", ["disc!"]), base, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits_of_first("colour?", ["DISC?"]), base, atol=1e-5, rtol=1e-5)


def test_without_a_chat_format_the_answer_follows_the_image(images):
    model = tiny_model()
    captions = Sample(images=(images[0],), turns=ask("ignored", "red", "disc"), id="plain")
    batch = batch_of(model, [captions], pack=True, plain=True, end="\n")
    k, image = model.config.num_image_tokens, model.config.image_token_id
    processor = tiny_processor(model.config)
    red, disc = processor.encode("red\n"), processor.encode("disc\n")
    ids, examples = batch.inputs["input_ids"], batch.inputs["example_ids"]
    assert sorted(ids[examples == i].tolist() for i in (0, 1)) == sorted([[image] * k + red, [image] * k + disc])
    assert batch.images == 2  # an image token cannot be said twice, so the answers do not share it


def test_what_is_learnt_is_the_answers_and_their_ends(images):
    model = tiny_model()
    processor = tiny_processor(model.config)
    batch = batch_of(model, [samples(images)[2]], pack=False)
    learnt = batch.inputs["labels"][batch.inputs["labels"] != IGNORE]
    assert processor.tokenizer.decode(learnt) == "a disc<|im_end|>left<|im_end|>"


def test_mismatched_images_name_the_sample(images):
    model = tiny_model()
    wrong = Sample(images=(images[0],), turns=ask("<ImageHere> and <ImageHere>?", "no"), placed=True, id="file.jsonl:7")
    with pytest.raises(UserError, match=r"file.jsonl:7: 2 placeholder\(s\) <ImageHere>, but 1 picture"):
        batch_of(model, [wrong], pack=True)


def test_frozen_head_loss_equals_plain_loss(model, images):
    batch = batch_of(model, samples(images), pack=True)
    plain = loss_and_gradient(model, batch)
    model.get_output_embeddings().requires_grad_(False)
    model.zero_grad()
    out = model(**batch.inputs, num_items_in_batch=1, loss_only=True)
    out.loss.backward()
    assert out.logits is None
    torch.testing.assert_close(out.loss.item(), plain[0], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(model.projection.weight.grad, plain[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen_head", [True, False])
def test_factors_weigh_answers(images, frozen_head):
    model = tiny_model()
    model.get_output_embeddings().requires_grad_(not frozen_head)
    (captions,) = samples(images)[:1]
    reader = Reader([], Formatter(tiny_processor(model.config)))
    item = reader.item(captions)
    weights = (2.0, -1.0, 0.5)
    branches = tuple(
        replace(branch, factors=(w,) * len(branch.ids)) for branch, w in zip(item.example.branches, weights, strict=True)
    )
    collate = Collator(reader.formatter.processor, pack=True, row_tokens=400)
    batch = collate([replace(item, example=replace(item.example, branches=branches))])
    losses = []
    for branch in item.example.branches:
        one = collate([replace(item, example=replace(item.example, branches=(branch,)))])
        losses.append(model(**one.inputs, num_items_in_batch=1).loss)
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True))
    got = model(**batch.inputs, num_items_in_batch=1, loss_only=True).loss
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    (one_way,) = torch.autograd.grad(got, model.projection.weight)
    (other_way,) = torch.autograd.grad(expected, model.projection.weight)
    torch.testing.assert_close(one_way, other_way, atol=1e-3, rtol=1e-3)
