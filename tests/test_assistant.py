"""A loaded system that answers: alone or in batches, at once or in pieces, and no further than it should."""

import random

import pytest
import shapes
import torch
from conftest import tiny_config, tiny_llama, tiny_model, tiny_processor, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from minigpt4 import UserError
from minigpt4.checkpoints.loading import best_dtype
from minigpt4.engine.defaults import MAX_NEW_TOKENS
from minigpt4.engine.stopping import StopAtText
from minigpt4.engine.streaming import TextStream, cut_at
from minigpt4.inference.assistant import Assistant, load
from minigpt4.prompt.templates import TEMPLATES, ChatTemplate


def assistant(kind="concat", template="chatml", task_settings=None, **changes):
    torch.manual_seed(0)  # the same weights whenever it is called
    model = tiny_model(kind, **changes)
    return Assistant(model, tiny_processor(model.config, template), task_settings=task_settings)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for i, thing in enumerate(shapes.things(9)):
        paths.append(folder / f"{i}.png")
        shapes.draw(*thing, random.Random(i)).save(paths[-1])
    return paths


def test_candidates_are_scored_in_their_order(images):
    model = assistant()
    given = ["a dog", "no", "two birds in a tree"]
    scored = model.score(images[0], "what?", given)
    assert [score.text for score in scored] == given
    assert sum(score.probability for score in scored) == pytest.approx(1)
    shares = torch.tensor([score.logprob for score in scored]).softmax(0)
    assert [score.probability for score in scored] == pytest.approx(shares.tolist(), abs=1e-5)
    assert [score.tokens for score in scored] == [len(text) + 1 for text in given]  # letters, and the end
    many = model.score_many([(image, "what?", given) for image in images[:3]])
    assert [score.logprob for score in many[0]] == pytest.approx([score.logprob for score in scored], abs=1e-4)
    assert many[1] != many[0]
    assert model.score(images[0], "what?", ["<|im_end|>"])[0].text == "<|im_end|>"  # as given, though not read as such
    for wrong in ([], ["a", " "], "yes"):
        with pytest.raises(UserError, match="one or more texts"):
            model.score(images[0], "what?", wrong)


# many questions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["concat", "qformer"])
@pytest.mark.parametrize(
    "generation",
    [{}, {"num_beams": 3}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}],
    ids=["greedy", "beams", "penalty"],
)
def test_answers_do_not_depend_on_the_batch(kind, generation, images):
    system = assistant(kind)
    rng = random.Random(0)
    items = []
    for i in range(17):  # unequal lengths, no picture, one, several, the same twice, files and opened ones
        shown = [rng.choice(images) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
        items.append((shown, "why? " * rng.randint(1, 8) + str(i)))
    items.append((images[0], "one that is not in a list"))
    items.append((shapes.draw("red", "disc", "top left", rng), "one that is in no file"))
    alone = [system.ask(shown, question, max_new_tokens=12, **generation) for shown, question in items]
    assert len(set(alone)) > 10
    for batch_size in (1, 2, 16):
        assert system.ask_many(iter(items), batch_size=batch_size, max_new_tokens=12, **generation) == alone
    captions = [system.caption(p, max_new_tokens=12, **generation) for p in images]
    assert len(set(captions)) > 1
    for batch_size in (1, 4, 16):
        assert system.caption(images, batch_size=batch_size, max_new_tokens=12, **generation) == captions


def test_a_batch_looks_at_each_image_once(images, monkeypatch):
    system, looked = assistant(), []
    plain = system.processor.image_processor.resize
    monkeypatch.setattr(system.processor.image_processor, "resize", lambda p: looked.append(str(p)) or plain(p))
    one, two = images[:2]
    system.ask_many([(one, "a"), ([two, one], "b"), (str(one), "c")], max_new_tokens=2)
    assert looked == [str(one), str(two)]


def test_nothing_to_ask_and_sizes_that_cannot_be(images):
    system = assistant()
    assert system.ask_many([]) == []
    assert system.caption([]) == []
    with pytest.raises(UserError, match="batch_size must be at least 1, not 0"):
        system.ask_many([(images[0], "?")], batch_size=0)


@pytest.mark.parametrize("question", [None, 3, b"what?"])
def test_a_question_that_is_no_text_is_refused(question, images):
    system = assistant()
    chat = system.chat(images[0])
    for ask in (
        lambda: system.ask(images[0], question),
        lambda: list(system.stream(images[0], question)),
        lambda: chat.ask(question),
        lambda: system.score(images[0], question, ["yes"]),
    ):
        with pytest.raises(UserError, match="a question must be text, not "):
            ask()
    with pytest.raises(UserError, match=r"\[refer\] needs a phrase"):
        system.refer(images[0], question)
    with pytest.raises(UserError, match="candidates must be a list of one or more texts"):
        system.score(images[0], "what?", ["yes", question])


def test_the_order_of_images_matters_and_a_typed_placeholder_is_text(images):
    system = assistant()
    a, b = images[:2]
    before = system.ask([a, b], "x y", max_new_tokens=20)
    assert before != system.ask([b, a], "x y", max_new_tokens=20)
    for number in range(3):  # what is typed is no place, however many images there are
        typed = system.ask([a, b][:number], "<ImageHere> <ImageHere>", max_new_tokens=5)
        assert typed == system.ask([a, b][:number], "< ImageHere> < ImageHere>", max_new_tokens=5)


# settings ---------------------------------------------------------------------------------------------------------------


def told_to(monkeypatch, system):
    """The sampling parameters that reach the engine, request by request."""
    told = []
    plain = system.engine.submit
    monkeypatch.setattr(system.engine, "submit", lambda request: told.append(request.params) or plain(request))
    return told


def test_settings_come_from_the_system_unless_given(images, monkeypatch):
    system = assistant(task_settings={"caption": {"max_new_tokens": 5, "num_beams": 2}, "vqa": {"max_new_tokens": 3}})
    system.model.generation_config = GenerationConfig(max_new_tokens=9, eos_token_id=2, pad_token_id=0)
    told = told_to(monkeypatch, system)

    def settings():
        return told[-1].max_new_tokens, told[-1].num_beams

    image = images[0]
    system.ask(image, "hm?")
    assert settings() == (9, 1)
    system.caption(image)
    assert settings() == (5, 2)
    system.ask(image, "[caption] hm?")
    assert settings() == (5, 2)
    system.caption(image, max_new_tokens=7, num_beams=1)
    assert settings() == (7, 1)
    system.caption(image, max_new_tokens=None, temperature=0.5)
    assert settings() == (5, 1)  # sampling takes the place of the wished beams
    system.vqa(image, "what?")
    assert settings() == (3, 1)
    "".join(system.stream(image, "[caption] hm?"))
    assert settings() == (5, 1)  # beams cannot be streamed
    batch = [(image, q) for q in ("hm?", "[caption] a", "[vqa] b", "ho?", "[caption] c")]
    mixed = system.ask_many(batch)
    assert [params.max_new_tokens for params in told[-5:]] == [9, 9, 5, 5, 3]
    assert mixed == [system.ask(*item) for item in batch]


def test_systems_that_do_not_say_how_long_get_room_for_an_answer(images, monkeypatch):
    short, long = assistant(), assistant(text_config=tiny_llama(max_position_embeddings=4096))
    for system, room in ((short, 512 // 4), (long, MAX_NEW_TOKENS)):
        told = told_to(monkeypatch, system)
        system.ask(images[0], "hm?")
        assert told[-1].max_new_tokens == room


def test_seeds(images):
    system = assistant()

    def ask(**given):
        return system.ask(images[0], "hm?", do_sample=True, temperature=3.0, max_new_tokens=20, **given)

    for seed in (0, 1):
        assert ask(seed=seed) == ask(seed=seed)
    assert ask(seed=0) != ask(seed=1)
    assert ask() != ask()
    state = torch.get_rng_state()
    ask()
    ask(seed=7)
    assert torch.equal(torch.get_rng_state(), state)  # seeds belong to a request, not to the process
    streamed = "".join(system.stream(images[0], "hm?", do_sample=True, temperature=3.0, max_new_tokens=20, seed=0))
    assert streamed == ask(seed=0)


def test_temperature_means_sampling(images):
    system = assistant()
    hot = {system.ask(images[0], "hm?", temperature=5.0, max_new_tokens=10, seed=i) for i in range(4)}
    assert len(hot) > 1
    assert len({system.ask(images[0], "hm?", temperature=0, max_new_tokens=10) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 5.0, "do_sample": False}, "temperature does not go with do_sample=False"),
        ({"temperature": 0, "do_sample": True}, "do_sample does not go with temperature=0, which is greedy"),
        ({"max_new_token": 3}, r"unknown setting max_new_token \(did you mean max_new_tokens\?\)"),
        ({"num_return_sequences": 2}, "unknown setting num_return_sequences"),
        ({"return_dict_in_generate": True}, "unknown setting return_dict_in_generate"),
        ({"n": 2, "temperature": 1.0}, "n does not go with a question, which has one answer"),
        ({"num_beams": 2, "temperature": 1.0}, "temperature does not go with num_beams"),
        ({"temperature": 1e-40}, r"temperature must be 0 \(greedy\) or at least"),
        ({"length_penalty": 2.0}, "length_penalty goes with num_beams"),
        ({"top_p": 1.5}, "top_p must be from 0 to 1, not 1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number, at least 1, not 0"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens=9 is more than max_new_tokens=3"),
        ({"stop": ["a", ""]}, "stop must be a list of texts"),
        ({"logprobs": 3}, "logprobs would be lost, an answer is text here"),
    ],
)
def test_settings_that_do_not_exist_or_do_not_go_together_are_refused(images, settings, message):
    system = assistant()
    with pytest.raises(UserError, match=message):
        system.ask(images[0], "hm?", **settings)
    with pytest.raises(UserError, match=message.replace("temperature does not go with num_beams", "beam search cannot be")):
        next(system.stream(images[0], "hm?", **settings))
    with pytest.raises(UserError, match=message):
        system.chat(images[0]).ask("hm?", **settings)


def test_beams_and_sampling_are_refused_by_the_name_that_was_given(images):
    for name, value in (("do_sample", True), ("top_k", 5), ("top_p", 0.5)):
        with pytest.raises(UserError, match=f"^{name} does not go with num_beams=4"):
            assistant().ask(images[0], "hm?", num_beams=4, **{name: value})


def test_what_does_not_fit_says_both_numbers(images):
    system = assistant()
    room = 512 - system.processor.num_image_tokens
    template = len(system.processor.prompt_ids([{"role": "user", "content": "<Img><ImageHere></Img> "}]))
    template -= system.processor.num_image_tokens
    fits = "x" * (room - template - 10)
    assert system.ask(images[0], fits, max_new_tokens=10) is not None
    with pytest.raises(UserError, match=r"it takes 503 tokens, and 10 new ones do not fit .* context of 512"):
        system.ask(images[0], fits + "x", max_new_tokens=10)
    with pytest.raises(UserError, match=r"100,0\d\d tokens"):
        list(system.stream(images[0], "why? " * 20_000))
    with pytest.raises(UserError, match="600 new ones"):
        system.ask(images[0], "?", max_new_tokens=600)


def test_devices_and_types_that_do_not_exist():
    for wanted in ("toaster", "cuda:99", "cuda:x"):
        with pytest.raises(UserError, match=f"{wanted}: "):
            load("pocket", device=wanted)
    for wanted in ("float7", "load", "Tensor"):
        with pytest.raises(UserError, match="dtype must be"):
            load("pocket", dtype=wanted)


# in pieces --------------------------------------------------------------------------------------------------------------


def stopping_template(stop):
    return ChatTemplate(name="stopping", user="Q:", assistant="A:", sep="\n", end=stop[0], stop=stop)


@pytest.mark.parametrize("kind", ["concat", "qformer"])
def test_stream_joined_is_the_answer(kind, images):
    system = assistant(kind)
    for i in range(6):
        question = f"number {i}?"
        whole = system.ask(images[i], question, max_new_tokens=60)
        pieces = list(system.stream(images[i], question, max_new_tokens=60))
        assert "".join(pieces) == whole
        assert len(pieces) > len(whole) / 2
    with pytest.raises(UserError, match="cannot be streamed"):
        next(system.stream(images[0], "hm?", num_beams=3))


def test_answers_end_at_stop_texts(images, monkeypatch):
    free = assistant()
    answers = [free.ask(p, "hm?", max_new_tokens=60) for p in images]
    marks = (answers[0][20:23], answers[3][10:12])
    monkeypatch.setitem(TEMPLATES, "chatml", stopping_template(marks))
    system = assistant()
    whole = system.ask_many([(p, "hm?") for p in images], max_new_tokens=60)
    monkeypatch.setitem(TEMPLATES, "chatml", ChatTemplate(name="plain", user="Q:", assistant="A:", sep="\n", end="x"))
    plain = assistant()
    uncut = plain.ask_many([(p, "hm?") for p in images], max_new_tokens=60)
    monkeypatch.setitem(TEMPLATES, "chatml", stopping_template(marks))
    assert whole == [cut_at(text, marks).strip() for text in uncut]
    for image, text in zip(images, whole, strict=True):
        assert "".join(system.stream(image, "hm?", max_new_tokens=60)) == text
        assert system.ask(image, "hm?", max_new_tokens=60) == text


def test_a_caller_may_name_stop_texts(images):
    system = assistant()
    whole = system.ask(images[0], "hm?", max_new_tokens=60)
    mark = whole[20:23]
    assert system.ask(images[0], "hm?", max_new_tokens=60, stop=[mark]) == whole[: whole.index(mark)].rstrip()
    assert "".join(system.stream(images[0], "hm?", max_new_tokens=60, stop=mark)) == whole[: whole.index(mark)].rstrip()


def byte_level():
    """Pieces of several characters, and characters of several pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["## ### a ###Human: what is it ###\n the cat ", "it is a cat ### and ## a dog #"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sentence_pieces():
    """As Llama's: a blank is the beginning of a piece, and the first one of a text is dropped."""
    pieces = ["<unk>", "▁", "▁a", "▁#", "#", "##", "###", "\n", "▁Human", ":", "cat", "a", "<0xE2>", "<0x82>", "<0xAC>", "é"]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {"characters": tiny_tokenizer(), "bytes": byte_level(), "sentence pieces": sentence_pieces()}
EURO = [12, 13, 14]  # in bytes, among sentence pieces


@st.composite
def generated(draw, name):
    """What a language model might say: ids, mostly those that stop texts are made of."""
    tokenizer = TOKENIZERS[name]
    if name == "sentence pieces":
        parts = st.sampled_from([[i] for i in range(len(tokenizer)) if i not in EURO] + [EURO])
        return [i for part in draw(st.lists(parts, max_size=25)) for i in part]
    likely = tokenizer("###Human: \n", add_special_tokens=False)["input_ids"] + tokenizer("#")["input_ids"]
    return draw(st.lists(st.one_of(st.sampled_from(likely), st.integers(0, len(tokenizer) - 1)), max_size=25))


STOPS = st.sampled_from([(), ("###",), ("###", "Human:"), ("\n",), ("a", "##")])


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data(), stop=STOPS)
def test_any_pieces_joined_are_the_text_up_to_a_stop(name, data, stop):
    tokenizer, ids = TOKENIZERS[name], data.draw(generated(name))
    stream = TextStream(tokenizer, stop)
    pieces = [stream.put([i]) for i in ids]
    pieces.append(stream.end())
    assert "".join(pieces) == cut_at(tokenizer.decode(ids, skip_special_tokens=True), stop).strip()


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data(), stop=STOPS.filter(bool))
def test_a_stop_text_is_seen_as_soon_as_it_is_whole_in_each_row_by_itself(name, data, stop):
    tokenizer = TOKENIZERS[name]
    rows = [data.draw(generated(name)) for _ in range(2)]
    length = min(map(len, rows))
    criterion = StopAtText(tokenizer, stop)
    ended = [False, False]
    for n in range(1, length + 1):
        now = criterion(torch.tensor([row[:n] for row in rows]), None).tolist()
        for i, row in enumerate(rows):
            if not ended[i]:
                assert now[i] == any(mark in tokenizer.decode(row[:n], skip_special_tokens=True) for mark in stop)
            ended[i] |= now[i]


def test_a_configuration_is_not_changed_by_asking(images):
    system = assistant()
    before = system.model.generation_config.to_dict()
    system.ask(images[0], "hm?", num_beams=2, max_new_tokens=4, repetition_penalty=2.0)
    "".join(system.stream(images[0], "hm?", max_new_tokens=4, temperature=2.0, seed=1))
    assert system.model.generation_config.to_dict() == before


def test_precision_suits_the_machine_and_the_llm(monkeypatch):
    small = tiny_config()
    large = tiny_config(text_config=LlamaConfig(num_hidden_layers=32, hidden_size=4096, intermediate_size=11008))
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert best_dtype(small) == torch.float32  # so that batches of any size give the same answers
    assert best_dtype(large) == torch.bfloat16
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    assert best_dtype(large) == torch.float32
