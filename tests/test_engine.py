"""The engine: answers do not depend on neighbours, what was read is not read twice, and what goes wrong goes wrong alone."""

import random
import threading

import pytest
import shapes
import torch
from conftest import tiny_config, tiny_llama, tiny_model, tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MambaConfig

from minigpt4 import MiniGPT4ForConditionalGeneration, UserError
from minigpt4.checkpoints.onnx_graph import GRAPH, write_graph
from minigpt4.engine import scheduler
from minigpt4.engine.backend import TorchBackend
from minigpt4.engine.completion import EngineFull, Request
from minigpt4.engine.engine import Engine
from minigpt4.engine.limits import Limits, out_of_memory
from minigpt4.engine.onnx_backend import OnnxBackend
from minigpt4.engine.params import SamplingParams
from minigpt4.engine.rows import Rows
from minigpt4.engine.stopping import StopAtText
from minigpt4.prompt.templates import with_images

IMAGES = [shapes.draw(*thing, random.Random(i)) for i, thing in enumerate(shapes.things(4))]


@pytest.fixture(scope="module", params=["torch", "onnx"])
def parts(request, tmp_path_factory):
    """A model, its processor, and what makes each backend that ships of it."""
    torch.manual_seed(0)
    model = tiny_model(text_config=tiny_llama(hidden_size=64))  # heads of 16 numbers
    processor = tiny_processor(model.config)
    if request.param == "torch":
        return model, processor, TorchBackend(model)
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("graph")
    weights = {name: weight.numpy() for name, weight in model.language_model.state_dict().items()}
    write_graph(weights, model.config.text_config, 32, folder)
    return model, processor, OnnxBackend(folder / GRAPH, model, 1)


def new(parts, limits=Limits()) -> Engine:
    """An engine that has seen nothing."""
    model, processor, backend = parts
    return Engine(model, processor, limits, backend)


def request(number: int, **params) -> Request:
    """Question number so-and-so, about none, one or two images."""
    images = IMAGES[: (number + 1) % 3]
    text = with_images("why? " * (number % 5) + str(number), len(images))
    return Request(messages=[{"role": "user", "content": text}], images=images, params=SamplingParams(**params))


WAYS = [
    {},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 3},
    {"temperature": 1.0, "n": 3, "seed": 1, "stratified": True},
    {"min_new_tokens": 6},
    {"num_beams": 3, "n": 2, "no_repeat_ngram_size": 2},
    {"num_beams": 4, "length_penalty": -1.0, "repetition_penalty": 1.3},
]


@pytest.fixture(scope="module")
def alone(parts):
    """What each question gets in an engine of its own that keeps nothing."""
    known = {}

    def ask(number, way, length):
        if (number, way, length) not in known:
            engine = new(parts, Limits(prefix_bytes=0, image_bytes=0))
            asked = request(number, max_new_tokens=length, **WAYS[way])
            known[number, way, length] = [done.token_ids for done in engine.generate([asked])[0]]
            engine.close()
        return known[number, way, length]

    return ask


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, len(WAYS) - 1), st.sampled_from([6, 7, 12])), max_size=8),
    st.sampled_from([Limits(), Limits(rows=3), Limits(prefill=16), Limits(tokens=200), Limits(prefix_bytes=0)]),
    st.sets(st.integers(0, 7), max_size=2),
)
def test_answers_do_not_depend_on_what_runs_beside_them(parts, alone, asked, limits, cancelled):
    engine = new(parts, limits)
    tickets = [engine.submit(request(number, max_new_tokens=length, **WAYS[way])) for number, way, length in asked]
    for i in cancelled:
        if i < len(tickets):
            tickets[i].cancel()
    for i, (ticket, (number, way, length)) in enumerate(zip(tickets, asked, strict=True)):
        said = [done.token_ids for done in ticket.result()]
        if i not in cancelled:
            assert said == alone(number, way, length)
        elif "num_beams" not in WAYS[way]:  # the best beam so far need not be how the best answer begins
            assert all(ids == whole[: len(ids)] for ids, whole in zip(said, alone(number, way, length), strict=True))
    engine.close()


def test_greedy_is_what_the_library_says(parts, alone):
    model, processor, _ = parts
    for number in range(4):
        asked = request(number, max_new_tokens=12)
        ids = processor.pad([processor.prompt_ids(asked.messages)])
        images = processor.image_processor(list(asked.images))["pixel_values"] if asked.images else None
        embeds = None if images is None else model.get_image_features(images)
        for way, wanted in ((0, {}), (1, WAYS[1]), (4, WAYS[4])):
            said = model.generate(**ids, image_embeds=embeds, max_new_tokens=12, **wanted)[0].tolist()
            assert list(alone(number, way, 12)[0]) == said


def test_what_was_read_is_not_read_twice(parts):
    model, processor, _ = parts
    engine, looked = new(parts), []
    handle = model.vision_tower.register_forward_hook(lambda _, args, __: looked.append(len(args[0])))
    first = engine.generate([request(1, max_new_tokens=9)])[0][0]
    again = engine.generate([request(1, max_new_tokens=9)])[0][0]
    handle.remove()
    assert again.token_ids == first.token_ids
    assert looked == [2]  # both images of the first question, and none after it
    assert (first.cached_tokens, again.cached_tokens) == (0, first.prompt_tokens - 1)
    assert first.image_tokens == 2 * processor.num_image_tokens
    messages = [*request(1).messages, {"role": "assistant", "content": first.text}, {"role": "user", "content": "and?"}]
    later = engine.generate([Request(messages=messages, images=IMAGES[:2], params=SamplingParams(max_new_tokens=9))])[0][0]
    fresh = new(parts, Limits(prefix_bytes=0)).generate(
        [Request(messages=messages, images=IMAGES[:2], params=SamplingParams(max_new_tokens=9))]
    )[0][0]
    assert later.token_ids == fresh.token_ids
    assert later.cached_tokens >= first.prompt_tokens
    assert fresh.cached_tokens == 0


def test_images_are_counted_once_a_request(parts):
    engine = new(parts, Limits(rows=2, prefill=16))
    engine.generate([request(1, max_new_tokens=5) for _ in range(6)])
    assert engine.stats.images_encoded == 2
    assert engine.stats.images_known == 6 * 2 - 2


def test_memory_for_what_was_read_has_a_limit(parts):
    engine = new(parts, Limits(prefix_bytes=30_000, image_bytes=600))
    for number in range(12):
        engine.generate([request(number, max_new_tokens=5)])
    assert 0 < engine._scheduler.prefixes.bytes <= 30_000
    assert engine.images.bytes <= 600


def test_pieces_are_the_answer_and_carry_its_probabilities(parts):
    model, processor, _ = parts
    engine = new(parts)
    (whole,) = engine.generate([request(3, max_new_tokens=9, logprobs=2)])[0]
    pieces = list(engine.stream(request(3, max_new_tokens=9, logprobs=2)))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [p.completion for p in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert tuple(one for piece in pieces for one in piece.logprobs) == pieces[-1].completion.logprobs
    assert len(whole.logprobs) == len(whole.token_ids)
    ids = torch.tensor([processor.prompt_ids(request(3).messages) + list(whole.token_ids)])
    embeds = torch.stack([image.embeds for image in engine.encode(request(3).images)])
    logp = model(ids, image_embeds=embeds).logits[0].log_softmax(-1)
    for place, one in enumerate(whole.logprobs):
        row = logp[len(ids[0]) - len(whole.token_ids) - 1 + place]
        assert one.logprob == pytest.approx(row[one.token_id].item(), abs=1e-4)
        assert [i for i, _, _ in one.top] == row.topk(2).indices.tolist()


def test_who_leaves_frees_the_room(parts):
    engine = new(parts, Limits(rows=1))
    stream = engine.stream(request(2, max_new_tokens=400, min_new_tokens=400))
    next(stream)
    stream.close()
    assert engine.generate([request(4, max_new_tokens=3)])[0][0].generated_tokens <= 3
    assert engine.stats.cancelled == 1


def test_a_full_queue_is_refused(parts, monkeypatch):
    engine = new(parts, Limits(rows=1, waiting=2))
    go = threading.Event()
    plain = engine.backend.read
    monkeypatch.setattr(engine.backend, "read", lambda *a, **k: plain(*a, **k) if go.wait(60) else None)
    first = engine.submit(request(0, max_new_tokens=2))
    while engine._scheduler._waiting:  # until the engine has taken it
        pass
    tickets = [first, engine.submit(request(1, max_new_tokens=2)), engine.submit(request(2, max_new_tokens=2))]
    with pytest.raises(EngineFull, match="2 requests are waiting"):
        engine.submit(request(3, max_new_tokens=2))
    go.set()
    assert all(ticket.result()[0].token_ids for ticket in tickets)
    assert engine.generate([request(3, max_new_tokens=2)])  # there is room again


def test_what_is_wrong_fails_alone(parts, tmp_path):
    engine = new(parts)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image")
    text = with_images("what?", 1)
    broken = Request(messages=[{"role": "user", "content": text}], images=[tmp_path / "broken.png"])
    tickets = [engine.submit(one) for one in (request(1, max_new_tokens=4), broken, request(4, max_new_tokens=4))]
    assert tickets[0].result()
    with pytest.raises(UserError, match=r"broken\.png"):
        tickets[1].result()
    assert tickets[2].result()
    with pytest.raises(UserError, match=r"places for 1 image\(s\), but 0 were given"):
        engine.submit(Request(messages=[{"role": "user", "content": text}]))
    with pytest.raises(UserError, match="context of 512"):
        engine.submit(request(0, max_new_tokens=512))


def test_memory_that_runs_out_takes_the_largest_request_alone(parts, monkeypatch):
    engine = new(parts)
    plain = engine._scheduler._cache.step
    large, small = request(4, max_new_tokens=300, min_new_tokens=300), request(3, max_new_tokens=8, min_new_tokens=8)

    def step(tokens):
        if len(tokens) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return plain(tokens)

    monkeypatch.setattr(engine._scheduler._cache, "step", step)
    with engine._scheduler._wake:  # both are there when the engine looks
        tickets = [engine.submit(large), engine.submit(small)]
    with pytest.raises(UserError, match="memory does not suffice"):
        tickets[0].result()
    assert tickets[1].result()[0].generated_tokens == 8


@pytest.mark.parametrize("kind", ["read in pieces", "read in one go", "scored"])
def test_memory_that_runs_out_when_a_prompt_has_been_read_reaches_who_waits(kind, parts, monkeypatch):
    engine = new(parts, Limits(prefill=8 if kind != "read in one go" else 512))
    plain = Rows.add
    long = scored(4) if kind == "scored" else request(4, max_new_tokens=300, min_new_tokens=300)

    def full(*_):
        raise MemoryError

    def add(rows, block, row, length):
        return full() if length == ids else plain(rows, block, row, length)

    monkeypatch.setattr(Rows, "add", add)
    monkeypatch.setattr(scheduler, "candidate_logprobs", full)
    ids = len(engine.prompt_ids(long.messages, 1))
    with engine._scheduler._wake:  # both are there when the engine looks
        small = engine.submit(request(3, max_new_tokens=8, min_new_tokens=8))
        came: list = []
        engine.submit(long, came.append)
    assert small.result()[0].generated_tokens == 8  # which was running, and goes on
    engine.generate([request(0, max_new_tokens=1)])
    assert [str(one) for one in came] == [str(out_of_memory(MemoryError()))]


def test_a_fault_reaches_everybody_and_the_engine_goes_on(parts, monkeypatch):
    engine = new(parts)
    with monkeypatch.context() as broken:
        broken.setattr(engine._scheduler._cache, "step", lambda tokens: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.generate([request(2, max_new_tokens=9, min_new_tokens=9)])
    assert engine.generate([request(2, max_new_tokens=9, min_new_tokens=9)])[0][0].generated_tokens == 9


def library(parts, asked: Request, **wanted) -> list[list[int]]:
    """What `transformers` says to a request."""
    model, processor, _ = parts
    ids = processor.pad([processor.prompt_ids(asked.messages)])
    images = processor.image_processor(list(asked.images))["pixel_values"] if asked.images else None
    embeds = None if images is None else model.get_image_features(images)
    return model.generate(**ids, image_embeds=embeds, **wanted).tolist()


BEAMS = [
    {"num_beams": 3},
    {"num_beams": 4, "n": 3, "length_penalty": 2.0},
    {"num_beams": 5, "length_penalty": -3.0, "min_new_tokens": 4},
    {"num_beams": 2, "n": 2, "no_repeat_ngram_size": 2, "repetition_penalty": 1.4},
]


@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize("way", BEAMS, ids=str)
def test_beams_are_those_of_the_library(parts, way, early, monkeypatch):
    model, _, _ = parts
    monkeypatch.setattr(model.generation_config, "early_stopping", early)
    monkeypatch.setattr(model.generation_config, "eos_token_id", [2, *range(90, 110)])  # answers that end, at unlike lengths
    engine, wanted = new(parts), {"num_return_sequences" if name == "n" else name: value for name, value in way.items()}
    asked = [request(number, max_new_tokens=14, **way) for number in range(5)]
    ended = set()
    for one, some in zip(asked, engine.generate(asked), strict=True):
        theirs = library(parts, one, max_new_tokens=14, **wanted)
        ours = [list(done.token_ids) for done in some]
        assert ours == [row[: len(ids)] for row, ids in zip(theirs, ours, strict=True)]
        for done, row in zip(some, theirs, strict=True):
            assert set(row[len(done.token_ids) :]) <= {model.generation_config.pad_token_id, 2}  # nothing is missing
            assert done.finish_reason == ("length" if len(done.token_ids) == 14 and done.token_ids[-1] not in ENDS else "stop")
            ended.add(len(done.token_ids))
    assert len(ended) > 1 or early == "never"  # which favours the longest


ENDS = {2, *range(90, 110)}


def test_beams_end_at_stop_texts(parts):
    processor, engine = parts[1], new(parts)
    plain = engine.generate([request(2, max_new_tokens=12, num_beams=3)])[0][0]
    stop = plain.text[len(plain.text) // 2 :][:2]
    (done,) = engine.generate([request(2, max_new_tokens=12, num_beams=3, stop=(stop,))])[0]
    criteria = [StopAtText(processor.tokenizer, (*processor.chat.stop, stop))]
    (theirs,) = library(parts, request(2), max_new_tokens=12, num_beams=3, stopping_criteria=criteria)
    assert list(done.token_ids) == theirs[: len(done.token_ids)]
    assert stop not in done.text


def test_a_greedy_answer_goes_on_while_beams_are_searched(parts):
    """And beams that are cancelled free their rows at the next token."""
    engine = new(parts)
    stream = engine.stream(request(2, max_new_tokens=40, min_new_tokens=40))
    next(stream)
    beams = engine.submit(request(3, max_new_tokens=400, min_new_tokens=400, num_beams=5))
    assert sum(1 for _ in stream) > 5
    assert engine.stats.running > 0
    beams.cancel()
    assert [done.finish_reason for done in beams.result()] == ["cancelled"]
    engine.generate([request(4, max_new_tokens=2)])
    engine.close()  # its last round is over
    assert engine.stats.running == 0


def test_beams_cannot_be_streamed(parts):
    with pytest.raises(UserError, match="cannot be streamed"):
        new(parts).stream(request(1, num_beams=2))


CANDIDATES = ["no", "a long answer, with an end", "n", "not", "no"]


def whole_row_logprobs(model, processor, asked: Request) -> list[list[float]]:
    """Each candidate behind the prompt in a row of its own, read afresh."""
    said = []
    for text in asked.candidates:
        prompt = processor.prompt_ids(asked.messages)
        ids = prompt + processor.tokenizer(text + processor.chat.end, add_special_tokens=False)["input_ids"]
        embeds = None
        if asked.images:
            embeds = model.get_image_features(processor.image_processor(list(asked.images))["pixel_values"])
        logp = model(torch.tensor([ids]), image_embeds=embeds).logits[0].log_softmax(-1)
        said.append([logp[place - 1, ids[place]].item() for place in range(len(prompt), len(ids))])
    return said


def scored(number: int, candidates=tuple(CANDIDATES)) -> Request:
    asked = request(number)
    return Request(messages=asked.messages, images=asked.images, candidates=candidates)


@pytest.mark.parametrize("limits", [Limits(), Limits(prefill=16), Limits(rows=2, prefix_bytes=0)])
def test_candidates_are_scored_as_each_would_be_alone(parts, limits, alone):
    model, processor, _ = parts
    engine = new(parts, limits)
    tickets = []
    for number in range(5):  # among questions that are answered
        tickets += [engine.submit(scored(number)), engine.submit(request(number, max_new_tokens=6))]
    for number in range(5):
        done, written = tickets[2 * number].result(), tickets[2 * number + 1].result()
        assert written[0].token_ids == alone(number, 0, 6)[0]
        assert [one.text for one in done] == CANDIDATES
        for one, wanted in zip(done, whole_row_logprobs(model, processor, scored(number)), strict=True):
            assert [token.logprob for token in one.logprobs] == pytest.approx(wanted, abs=1e-4)
            assert one.logprob == pytest.approx(sum(wanted), abs=1e-3)
    assert not engine._scheduler._rows


def test_candidates_share_what_was_read(parts):
    engine = new(parts)
    first = engine.score(scored(1))
    assert first[0].cached_tokens == 0
    again = engine.score(scored(1, ["yes"]))
    assert again[0].cached_tokens == again[0].prompt_tokens - 1
    answered = engine.generate([request(1, max_new_tokens=3)])[0][0]
    assert answered.cached_tokens == answered.prompt_tokens - 1


@pytest.mark.parametrize("number", [0, -1, "3", 1.5])
def test_a_number_of_requests_at_a_time_is_one_or_more(number, parts):
    with pytest.raises(UserError, match="batch_size must be at least 1, not"):
        new(parts).generate([request(0)], batch_size=number)


def test_what_cannot_be_scored_is_refused(parts):
    engine = new(parts)
    with pytest.raises(UserError, match="no candidates"):
        engine.score(request(1))
    with pytest.raises(UserError, match="settings of decoding"):
        Request(messages=[], candidates=["a"], params=SamplingParams(max_new_tokens=3))
    with pytest.raises(UserError, match="list of texts"):
        Request(messages=[], candidates="yes")
    with pytest.raises(UserError, match="context of 512"):
        engine.score(scored(1, ["a" * 600]))


def test_a_recurrent_model_scores_too():
    config = tiny_config(
        text_config=MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, eos_token_id=2, bos_token_id=1)
    )
    model = MiniGPT4ForConditionalGeneration(config).eval()
    processor = tiny_processor(config)
    for one, wanted in zip(
        Engine(model, processor).score(scored(1)), whole_row_logprobs(model, processor, scored(1)), strict=True
    ):
        assert [token.logprob for token in one.logprobs] == pytest.approx(wanted, abs=1e-4)
