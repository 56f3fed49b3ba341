"""The answer that a model's other answers agree with most."""

import random
from collections import Counter

import pytest
import shapes
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_assistant import assistant

from minigpt4 import UserError
from minigpt4.engine.completion import Completion, Request
from minigpt4.engine.engine import Engine
from minigpt4.engine.params import SamplingParams
from minigpt4.engine.sampling import sample
from minigpt4.inference.self_consistency import agreed, boxes_alike, words_alike
from minigpt4.inference.watched import watched
from minigpt4.prompt.boxes import Box
from minigpt4.prompt.templates import with_images

IMAGES = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(4))]


@pytest.fixture(scope="module")
def system():
    return assistant()


def requests(questions, **params):
    """Questions about an image each."""
    return [
        Request(messages=[{"role": "user", "content": with_images(q, 1)}], images=[image], params=SamplingParams(**params))
        for image, q in zip(IMAGES, questions, strict=False)
    ]


def prompts(system, questions):
    """The same as inputs of the network."""
    asked = requests(questions)
    inputs = system.processor.pad([system.processor.prompt_ids(request.messages) for request in asked])
    return inputs, torch.stack([image.embeds for image in system.engine.encode(IMAGES[: len(questions)])])


def test_the_box_in_the_middle_of_the_others_is_chosen():
    boxes = [
        Box.from_grid(*corners).render() for corners in [(0, 0, 40, 40), (5, 0, 45, 40), (10, 0, 50, 40), (70, 70, 90, 90)]
    ]
    assert agreed(boxes) == boxes[1]
    assert agreed(["nowhere", boxes[0], boxes[0]]) == boxes[0]


def test_boxes_of_the_same_thing_are_fused():
    near = ["{<10><10><50><50>}", "{<10><10><50><52>}", "{<16><10><56><48>}"]
    assert agreed([*near, "{<70><70><90><90>}", "nothing"]) == "{<12><10><52><50>}"
    several = [
        "{<10><10><50><50>}<delim>{<60><60><90><90>}",
        "{<60><60><90><94>}",
        "{<60><62><90><90>}<delim>{<10><10><50><54>}",
    ]
    assert agreed(several) == "{<10><10><50><52>}<delim>{<60><61><90><91>}"  # each with its like, in whatever order
    assert agreed(["{<1>, <2>, <30>, <40>}"]) == "{<1>, <2>, <30>, <40>}"  # a single answer is left as it is


def test_the_sentence_that_shares_most_words_is_chosen():
    assert agreed(["the cat sleeps", "a dog runs fast", "a dog runs", "a dog sits"]) == "a dog runs"
    assert agreed(["first", "second"]) == "first"


def test_likeness_by_hand():
    left, right, all_ = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1), Box(0, 0, 1, 1)
    assert boxes_alike([left, right], [right, left]) == 1
    assert boxes_alike([left], [all_]) == 0.5
    assert boxes_alike([left, right], [left]) == pytest.approx(2 / 3)
    assert (boxes_alike([left], []), boxes_alike([], [])) == (0, 1)
    assert words_alike("a dog runs".split(), "a dog".split()) == 0.8
    assert (words_alike([], ["a"]), words_alike([], [])) == (0, 1)


EDGES = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted)
BOXES = st.tuples(EDGES, EDGES).map(lambda e: Box.from_grid(e[0][0], e[1][0], e[0][1], e[1][1]))


@given(st.lists(BOXES, max_size=4), st.lists(BOXES, max_size=4))
def test_likeness_is_symmetric_and_a_share(first, second):
    assert boxes_alike(first, second) == pytest.approx(boxes_alike(second, first))
    assert 0 <= boxes_alike(first, second) <= 1 + 1e-9


def test_answers_are_drawn_as_likely_as_the_model_has_them(system):
    asked = ["what?", "and what is there beside it?"]
    inputs, embeds = prompts(system, asked)
    said = system.engine.generate(requests(asked, n=100, stratified=True, seed=0, max_new_tokens=3, temperature=3.0))
    logits = system.model(**inputs, image_embeds=embeds).logits[:, -1]
    for answers, expected in zip([[done.token_ids for done in some] for some in said], (logits / 3).softmax(-1), strict=True):
        first = Counter(answer[0] for answer in answers)
        shares = torch.tensor([first[token] / 100 for token in range(len(expected))])
        assert (shares - expected).abs().max() < 0.02  # evenly spread chances: no more than a draw or two off
        second = {answer[0]: answer[1] for answer in answers if len(answer) > 1}
        assert len(set(second.values())) > 1


def test_what_answers_share_is_read_once_and_changes_nothing(system, monkeypatch):
    """Every drawn answer is what the model says when it reads that answer's own beginning from scratch."""
    inputs, embeds = prompts(system, ["what?", "and what is there beside it?"])
    widths = []
    plain = system.model.language_model.forward
    monkeypatch.setattr(
        system.model.language_model, "forward", lambda *a, **k: widths.append(len(k["attention_mask"])) or plain(*a, **k)
    )
    chances = torch.rand(7, 8, generator=torch.Generator().manual_seed(0))

    def choose(logits, rows, answers, step):
        upto = (logits.float() * 2).softmax(-1).cumsum(-1)[list(rows)]
        return (
            torch.searchsorted(upto, chances[step][[a % 8 for a in answers]][:, None]).squeeze(1).clamp(max=logits.shape[1] - 1)
        )

    said = sample(system.model, **inputs, image_embeds=embeds, samples=8, longest=7, ends={2}, choose=choose)
    assert widths[0] == 2 < max(widths) <= 16
    monkeypatch.undo()
    for answer, ids in enumerate(said):
        prompt = answer // 8
        for step in range(len(ids)):
            row = torch.cat([inputs["input_ids"][prompt], torch.tensor(ids[:step], dtype=torch.long)])
            mask = torch.cat([inputs["attention_mask"][prompt], torch.ones(step, dtype=torch.long)])
            logits = system.model(row[None], attention_mask=mask[None], image_embeds=embeds[prompt][None]).logits[:, -1]
            assert choose(logits, [0], [answer], step).item() == ids[step]


def test_drawn_almost_without_chance_is_greedy(system):
    greedy = system.ask(IMAGES[0], "hm?", max_new_tokens=8)
    assert system.ask(IMAGES[0], "hm?", max_new_tokens=8, self_consistency=3, temperature=1e-4) == greedy
    assert system.ask(IMAGES[0], "hm?", max_new_tokens=8, self_consistency=3, top_k=1) == greedy


def test_it_does_not_matter_what_is_asked_beside(system):
    items = [(image, "why? " * (i + 1)) for i, image in enumerate(IMAGES)]
    settings = {"max_new_tokens": 10, "self_consistency": 5}
    alone = [system.ask(*item, **settings) for item in items]
    assert system.ask_many(items, batch_size=4, **settings) == alone
    assert [system.ask(*item, **settings, seed=1) for item in items] != alone
    assert len(set(alone)) > 1


def test_answers_end_where_the_model_ends_them():
    system = assistant()
    params = {"n": 2, "temperature": 1.0, "top_k": 1}
    end = system.engine.generate(requests(["hm?"], max_new_tokens=1, **params))[0][0].token_ids[0]
    system.model.generation_config.eos_token_id = [end, 3]
    engine = Engine(system.model, system.processor)
    (both,) = engine.generate(requests(["hm?"], max_new_tokens=9, **params))
    assert [(done.token_ids, done.finish_reason, done.text) for done in both] == [((end,), "stop", "")] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"self_consistency": 129}, "a number of answers, from 1 to 128, not 129"),
        ({"self_consistency": 4, "mirrored": "no"}, "mirrored must be true or false, not 'no'"),
        ({"zoom_in": [1]}, r"zoom_in must be true or false, not \[1\]"),
        ({"self_consistency": 0}, "a number of answers, from 1 to 128, not 0"),
        ({"self_consistency": 4, "num_beams": 3}, "leave out num_beams"),
        ({"self_consistency": 4, "do_sample": False}, "leave out do_sample=False"),
    ],
)
def test_settings_that_do_not_go_together(system, settings, message):
    with pytest.raises(UserError, match=message):
        system.ask(IMAGES[0], "hm?", **settings)


def test_streaming_leaves_a_task_s_self_consistency_out_and_refuses_a_given_one():
    system = assistant(task_settings={"refer": {"self_consistency": 4}})
    assert not system.streams("[refer] a dog", {})
    assert "".join(system.stream(IMAGES[0], "[refer] a dog", max_new_tokens=5))
    with pytest.raises(UserError, match="leave out self_consistency"):
        next(system.stream(IMAGES[0], "[refer] a dog", self_consistency=4))


def test_a_task_s_self_consistency_gives_way_to_what_is_given():
    plain, system = assistant(), assistant(task_settings={"refer": {"self_consistency": 4}})
    question, short = "[refer] a dog", {"max_new_tokens": 6}
    usual = system.ask(IMAGES[0], question, **short)
    assert usual == plain.ask(IMAGES[0], question, self_consistency=4, **short)
    for other in ({"self_consistency": 1}, {"num_beams": 3}, {"repetition_penalty": 1.3}, {"do_sample": False}):
        expected = plain.ask(IMAGES[0], question, **(short | {k: v for k, v in other.items() if k != "self_consistency"}))
        assert system.ask(IMAGES[0], question, **(short | other)) == expected
    assert system.ask(IMAGES[0], question, seed=1, **short) == plain.ask(
        IMAGES[0], question, self_consistency=4, seed=1, **short
    )
    assert system.chat(IMAGES[0]).ask(question, self_consistency=1, **short) == plain.ask(IMAGES[0], question, **short)


def test_official_behaviour_knows_no_self_consistency():
    system = assistant(task_settings={"refer": {"self_consistency": 4}})
    system.official = True
    assert system.plan("[refer] a dog", {}).samples == 1
    with pytest.raises(UserError, match="official behaviour with self-consistency"):
        system.ask(IMAGES[0], "[refer] a dog", self_consistency=4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{<12><10><52><50>}", "stop"),  # the mean of two boxes; the first of the answers was cut off
        ("{<10><10><5", "length"),
        ("<p>a dog</p> {<9><9><50><50>}", "length"),
        ("nobody's", "length"),
    ],
)
def test_a_moved_answer_ends_as_the_one_did_that_was_moved(system, text, reason):
    _, engine = watched(system)
    said = [("{<10><10><5", "length"), ("{<10><10><50><50>}", "stop"), ("<p>a dog</p> {<8><8><50><50>}", "length")]
    engine.done = [[Completion(text=each, token_ids=(1,), finish_reason=why) for each, why in said]]
    done = engine.account(text, 1.0)
    assert (done.text, done.finish_reason, done.generated_tokens) == (text, reason, 3)


def test_a_request_that_is_begun_while_it_is_cancelled_is_cancelled(system, monkeypatch):
    _, engine = watched(system)
    submit = Engine.submit

    def meanwhile(*given):
        engine.cancel()
        return submit(*given)

    monkeypatch.setattr(Engine, "submit", meanwhile)
    ((done,),) = engine.generate(requests(["hm?"], max_new_tokens=200, min_new_tokens=200))
    assert done.finish_reason == "cancelled"
