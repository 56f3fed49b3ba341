"""Learning from a score: what scores better becomes likelier."""

from dataclasses import replace

import pytest
import shapes
import torch
from conftest import tiny_model, tiny_processor

from minigpt4.data.collate import Collator, Formatter, Reader
from minigpt4.data.sample import Sample, ask
from minigpt4.engine.sampling import at_random
from minigpt4.metrics.caption import Cider
from minigpt4.train.self_critical import SelfCritic


@pytest.fixture
def learner(tmp_path):
    """A tiny model, everything of it trained, and samples with one picture each."""
    shapes.write(tmp_path, 4)
    model = tiny_model()
    processor = tiny_processor(model.config)
    reader = Reader([], Formatter(processor))
    items = [
        reader.item(Sample(images=(p,), turns=ask("say a" * (i + 1), "a a", "a b"), id=p.name))
        for i, p in enumerate(sorted(tmp_path.glob("*.png")))
    ]
    collator = Collator(processor, pack=True, row_tokens=256)
    return model, items, SelfCritic(model, processor, collator, [["a a", "a b"]], samples=6, longest=8)


def test_what_scores_better_becomes_likelier(learner):
    model, items, critic = learner
    critic.score = lambda references, text: float(text.count("a"))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rewards = []
    for _ in range(80):
        batch, told = critic(items, torch.device("cpu"))
        rewards.append(told["reward"])
        model(**batch.inputs, loss_only=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert rewards[0] < 0.5
    assert sum(rewards[-5:]) / 5 > 3


def test_a_caption_that_breaks_off_scores_less(learner):
    _, _, critic = learner
    letters = {token: i for token, i in critic.processor.tokenizer.get_vocab().items() if len(token) == 1}
    whole, broken, end = [letters[c] for c in "a b"], [letters[c] for c in "a b a"], critic.end[0]
    critic.score = Cider([["a b endofcaption"], ["c a endofcaption"], ["b a endofcaption"]])
    ended, open_end, broken = (critic.score(["a b endofcaption"], critic._text(ids)) for ids in ([*whole, end], whole, broken))
    assert ended > open_end
    assert ended > broken


def test_things_that_are_not_there_cost_what_things_that_are_there_bring(learner):
    _, items, critic = learner
    answers = ("a dog on a couch", "a puppy sits beside a cat")
    sample = replace(items[0].sample, turns=ask("say", *answers))
    rows = [replace(items[0], sample=sample, reward="cider_objects")]
    critic.score = lambda references, text: 1.0
    said = ["a dog and a cat", "a dog, a dog", "a horse", "people", "a sofa, a horse"]
    critic._text = lambda ids: said[ids[0]] + " endofcaption"
    critic._sample = lambda *_: [[[i] for i in range(len(said))]]
    expected = [1 + 0.5 * more for more in (2, 1, -1, -1, 0)]
    assert critic(rows, torch.device("cpu"))[1] == pytest.approx({"reward": sum(expected) / 5, "reward_best": 2.0})
    assert critic([replace(rows[0], reward="cider")], torch.device("cpu"))[1] == {"reward": 1.0, "reward_best": 1.0}


def test_advantages_of_a_image_sum_to_nothing(learner):
    _, items, critic = learner
    critic.score = lambda references, text: float(len(text))
    batch, _ = critic(items, torch.device("cpu"))
    inputs = batch.inputs
    assert inputs["label_factors"][inputs["label_factors"] != 0].std() == pytest.approx(1, abs=0.5)
    seen = 0
    for examples, branches, factors in zip(inputs["example_ids"], inputs["branch_ids"], inputs["label_factors"], strict=True):
        for example in set(examples.tolist()) - {-1}:
            # The first token of each branch repeats the prompt's last; the second is the caption's own.
            first = [factors[(examples == example) & (branches == branch)][1].item() for branch in range(1, 7)]
            assert sum(first) == pytest.approx(0, abs=1e-4)
            assert max(first) > 0
            seen += 1
    assert seen == len(items)


def test_sampled_captions_are_the_models_own(learner):
    """Their likelihood under the ordinary forward pass is that under which they were drawn: greedy drawing gives greedy
    answers, for prompts of unequal length."""
    model, items, critic = learner
    model.get_output_embeddings().weight.data.mul_(1e5)  # so sure of itself that drawing leaves no choice
    drawn = critic._sample(items, critic.collator.stage, torch.device("cpu"))
    for item, captions in zip(items, drawn, strict=True):
        ids = torch.tensor([item.example.prefix_ids])
        greedy = model.generate(ids, item.images, max_new_tokens=8, do_sample=False, eos_token_id=critic.end[0], pad_token_id=0)
        assert all(caption == greedy[0].tolist()[: len(caption)] for caption in captions)


def test_a_frozen_vision_looks_once_for_drawing_and_learning(learner, monkeypatch):
    model, items, critic = learner
    torch.manual_seed(0)
    expected, _ = critic(items, torch.device("cpu"))
    assert set(expected.inputs) >= {"pixel_values", "label_factors"}  # a vision encoder that learns must look for itself
    model.vision_tower.requires_grad_(False)
    looks = []
    look = model.get_vision_tokens
    monkeypatch.setattr(model, "get_vision_tokens", lambda pixels: looks.append(len(pixels)) or look(pixels))
    torch.manual_seed(0)
    batch, _ = critic(items, torch.device("cpu"))
    loss = model(**batch.inputs, loss_only=True).loss
    assert looks == [len(items)]
    assert torch.equal(batch.inputs["input_ids"], expected.inputs["input_ids"])
    torch.testing.assert_close(loss, model(**expected.inputs, loss_only=True).loss)


def test_drawing_follows_the_chances():
    logits = torch.tensor([[0.1, 0.2, 0.0, 0.7], [0.5, 0.0, 0.5, 0.0]]).log()
    torch.manual_seed(0)
    drawn = at_random(logits, [0] * 20_000 + [1] * 20_000, range(40_000), 0).view(2, -1)
    for row, chances in zip(drawn, logits.exp(), strict=True):
        assert row.bincount(minlength=4) / 20_000 == pytest.approx(chances.numpy(), abs=0.02)
        assert not row.bincount(minlength=4)[chances == 0].any()
