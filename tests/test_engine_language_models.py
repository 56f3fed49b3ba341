"""The engine with language models of many kinds: those that have a cache of their own, or see it in their own way."""

from threading import Event

import pytest
import torch
import transformers
from conftest import tiny_config, tiny_llama, tiny_processor
from test_engine import request
from transformers import MambaConfig, MistralConfig

from minigpt4 import MiniGPT4ForConditionalGeneration, UserError
from minigpt4.engine.backend import has_plain_cache
from minigpt4.engine.engine import Engine


def test_recurrent_models_go_through_the_library():
    config = tiny_config(
        text_config=MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, eos_token_id=2, bos_token_id=1)
    )
    model = MiniGPT4ForConditionalGeneration(config).eval()
    recurrent = Engine(model, tiny_processor(config))
    both = recurrent.generate([request(i, max_new_tokens=6) for i in (1, 4)])
    for number, some in zip((1, 4), both, strict=True):
        assert recurrent.generate([request(number, max_new_tokens=6)])[0][0].token_ids == some[0].token_ids
    assert "".join(p.text for p in recurrent.stream(request(1, max_new_tokens=6))) == both[0][0].text
    with pytest.raises(UserError, match="leave logprobs out"):
        recurrent.submit(request(1, logprobs=1))


def test_a_window_of_attention_goes_through_the_library_too():
    small = {k: v for k, v in tiny_llama().to_dict().items() if k not in ("model_type", "architectures", "dtype")}
    config = tiny_config(text_config=MistralConfig(**small | {"sliding_window": 16}))
    torch.manual_seed(0)
    model = MiniGPT4ForConditionalGeneration(config).eval()
    processor = tiny_processor(config)
    asked = request(1, max_new_tokens=8)
    ids = processor.pad([processor.prompt_ids(asked.messages)])
    embeds = model.get_image_features(processor.image_processor(list(asked.images))["pixel_values"])
    said = model.generate(**ids, image_embeds=embeds, max_new_tokens=8)[0].tolist()
    assert list(Engine(model, processor).generate([asked])[0][0].token_ids) == said


LOCAL = {"attention_types": [[["global", "local"], 1]], "window_size": 8}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}


@pytest.mark.parametrize(
    ("kind", "sizes", "plain"),
    [
        ("BloomConfig", {"n_layer": 2, "n_head": 4}, False),
        ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2}, False),
        ("FalconConfig", {"num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True}, False),
        ("GPTNeoConfig", {"num_layers": 2, "num_heads": 4, "max_position_embeddings": 256} | LOCAL, False),
        ("MiniCPM3Config", {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48} | LATENT, True),
    ],
)
def test_language_models_that_see_by_index_or_have_narrow_values(kind, sizes, plain):
    """The first four were given one block, and answered something else beside a longer question than alone; the values of the
    last are narrower than its keys, and every request failed."""
    sizes = {"hidden_size": 32} | sizes if "d_model" not in sizes else sizes
    named = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = getattr(transformers, kind)(vocab_size=128, **sizes, **named)
    torch.manual_seed(0)
    config = tiny_config(text_config=text)
    model, processor = MiniGPT4ForConditionalGeneration(config).eval(), tiny_processor(config)
    assert has_plain_cache(model.language_model) == plain
    engine, asked = Engine(model, processor), [request(i, max_new_tokens=8) for i in (1, 4)]
    for one, (done,) in zip(asked, engine.generate(asked), strict=True):
        ids = processor.pad([processor.prompt_ids(one.messages)])
        pixels = processor.image_processor(list(one.images))["pixel_values"] if one.images else None
        embeds = None if pixels is None else model.get_image_features(pixels)
        assert list(done.token_ids) == model.generate(**ids, image_embeds=embeds, max_new_tokens=8)[0].tolist()
        assert done.timings.total > 0


def test_what_the_library_samples_is_another_answer_each_time():
    small = {k: v for k, v in tiny_llama().to_dict().items() if k not in ("model_type", "architectures", "dtype")}
    config = tiny_config(text_config=MistralConfig(**small | {"sliding_window": 16}))
    engine = Engine(MiniGPT4ForConditionalGeneration(config).eval(), tiny_processor(config))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn = {engine.generate([request(1, max_new_tokens=9, temperature=1.5)])[0][0].text for _ in range(5)}
    assert len(drawn) > 1
    seeded = {engine.generate([request(1, max_new_tokens=9, temperature=1.5, seed=4)])[0][0].text for _ in range(3)}
    assert len(seeded) == 1
    assert torch.equal(torch.get_rng_state(), state)


def by_library(**text):
    """A system whose language model the library decodes, and which comes to no end by itself."""
    sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    torch.manual_seed(0)
    model = MiniGPT4ForConditionalGeneration(tiny_config(text_config=transformers.BloomConfig(vocab_size=128, **sizes | text)))
    return Engine(model.eval(), tiny_processor(model.config))


def at_the_step(engine, number, then, monkeypatch):
    """Something happens while the language model computes its step of this number."""
    steps, forward = [], engine.model.language_model.forward

    def watched(*args, **kwargs):
        steps.append(1)
        if len(steps) == number:
            then()
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model.language_model, "forward", watched)
    return steps


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"temperature": 0.9, "seed": 1, "n": 2}, {"stop": ("###",)}])
def test_what_the_library_decodes_ends_where_it_is_cancelled(settings, monkeypatch):
    """It wrote on to the limit, and everybody else waited."""
    engine, tickets = by_library(), []
    steps = at_the_step(engine, 5, lambda: tickets[0].cancel(), monkeypatch)
    held = Event()
    real = engine._with_library
    monkeypatch.setattr(engine._scheduler, "_library", lambda group: (held.wait(), real(group)))
    tickets.append(engine.submit(request(1, max_new_tokens=60, **settings)))
    held.set()
    done = tickets[0].result()
    assert len(steps) < 8
    assert {one.finish_reason for one in done} == {"cancelled"}
    assert all(0 < len(one.token_ids) < 8 for one in done)
    assert engine.stats.cancelled == len(done)


def test_of_two_that_the_library_decodes_the_one_that_is_cancelled_ends(monkeypatch):
    engine, tickets = by_library(), []
    (alone,) = engine.generate([request(4, max_new_tokens=12)])[0]
    at_the_step(engine, 5, lambda: tickets[0].cancel(), monkeypatch)
    real, held = engine._with_library, Event()
    monkeypatch.setattr(engine._scheduler, "_library", lambda group: (held.wait(), real(group)))
    asking = request(9, max_new_tokens=1)
    engine.submit(asking)  # is taken by itself, so that the two after it wait for each other
    tickets += [engine.submit(request(i, max_new_tokens=12)) for i in (1, 4)]
    held.set()
    (first,), (second,) = (ticket.result() for ticket in tickets)
    assert (first.finish_reason, len(first.token_ids)) == ("cancelled", 4)
    assert (second.finish_reason, second.token_ids) == ("length", alone.token_ids)


def test_closing_does_not_wait_for_what_the_library_decodes(monkeypatch):
    engine = by_library()
    begun = Event()
    steps = at_the_step(engine, 3, begun.set, monkeypatch)
    ticket = engine.submit(request(1, max_new_tokens=220))
    begun.wait()
    engine.close()
    assert ticket.result()[0].finish_reason == "cancelled"
    assert len(steps) < 200
