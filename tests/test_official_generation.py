"""What the published systems say: token for token with the published behaviour, and better without it."""

import pytest
import torch
from conftest import tiny_model, tiny_processor
from official_systems import EXACT, SYSTEMS, images, shown, system
from recorded import recorded

from minigpt4.engine import official
from minigpt4.evaluate.ranking import candidate_losses, rank
from minigpt4.inference.assistant import Assistant
from minigpt4.prompt.history import without_oldest
from minigpt4.prompt.templates import IMAGE, PLACEHOLDER

GENERATED = ("repetition_penalty", "num_beams", "length_penalty")


def cases(*wanted):
    """(system, case) of all recorded systems, by what the case has."""
    return [
        pytest.param(name, case, id=f"{name}-{case['name']}")
        for name in SYSTEMS
        for case in recorded(f"{name}/generation.json")["cases"]
        if all(key in case for key in wanted)
    ]


def inputs_of(case, processor):
    """Prompts as the published code tokenises them, padded on the left."""
    return processor.pad([[processor.tokenizer.bos_token_id, *processor.encode(prompt)] for prompt in case["prompts"]])


def as_recorded(batch, processor):
    ids = batch["input_ids"].masked_fill(batch["input_ids"] == processor.image_token_id, -1)
    return ids.masked_fill(batch["attention_mask"] == 0, -2).tolist()


@pytest.mark.parametrize(("name", "case"), cases("output_ids"))
def test_token_for_token(name, case):
    model, processor = system(name).loaded()
    batch = inputs_of(case, processor)
    assert as_recorded(batch, processor) == case["input_ids"]
    settings = {key: case[key] for key in GENERATED if key in case}
    ids = official.generate_official(
        model,
        **batch,
        image_embeds=shown(case, system(name).image_embeds()),
        stop_sequences=case.get("stop_sequences", ()),
        max_new_tokens=case.get("max_new_tokens", 20),
        **settings,
    )
    margin = min(case.get("min_top1_top2_margin", [1.0]))
    if margin > 1e-3:
        assert ids.tolist() == case["output_ids"]
        trim = official.chat_text if case["name"].startswith("chat") else official.batch_text
        assert [trim(t) for t in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)] == case["decoded"]


@pytest.mark.parametrize(("name", "case"), cases("first_step_top5"))
@torch.no_grad()
def test_first_step(name, case):
    model, processor = system(name).loaded()
    batch = inputs_of(case, processor)
    logits = model(**batch, image_embeds=shown(case, system(name).image_embeds()), logits_to_keep=1).logits[:, -1]
    best = logits.topk(5)
    want = torch.tensor(case["first_step_top5"])
    torch.testing.assert_close(best.values, want[..., 1], **EXACT)
    assert best.indices.tolist() == want[..., 0].long().tolist()


@pytest.mark.parametrize(("name", "case"), cases("full_length"))
def test_cut_at_the_left(name, case):
    model, processor = system(name).loaded()
    (ids,) = inputs_of(case, processor)["input_ids"]
    assert len(ids) == case["full_length"]
    embeds, mask = official.embed_official(
        model, ids[None], None, shown(case, system(name).image_embeds()), case["max_length"], case["max_new_tokens"]
    )
    whole = model.embed(ids[None], shown(case, system(name).image_embeds()))
    left = len(case["input_ids"][0])
    assert embeds.shape[1] == mask.shape[1] == left
    assert torch.equal(embeds, whole[:, -left:])
    assert ids[-left:].masked_fill(ids[-left:] == processor.image_token_id, -1).tolist() == case["input_ids"][0]


@pytest.mark.parametrize(("name", "case"), cases("steps"))
@torch.no_grad()
def test_what_sampling_draws_from(name, case):
    model, processor = system(name).loaded()
    batch = inputs_of(case, processor)
    prompt = model.embed(batch["input_ids"], shown(case, system(name).image_embeds()))
    for step, known in enumerate(case["steps"]):
        begun = torch.tensor([case["sampled_ids"][: step + 1]])
        embeds = torch.cat([prompt, model.get_input_embeddings()(begun[:, 1:])], 1)
        out = model.generate(
            input_ids=begun,
            inputs_embeds=embeds,
            max_new_tokens=1,
            do_sample=True,
            temperature=case["temperature"],
            top_p=case["top_p"],
            top_k=case["top_k"],
            repetition_penalty=case["repetition_penalty"],
            output_scores=True,
            return_dict_in_generate=True,
        )
        (scores,) = out.scores[0]
        kept = scores.isfinite().nonzero()[:, 0].tolist()
        ids, values, probabilities = zip(*known["kept"], strict=True)
        assert kept == list(ids)
        torch.testing.assert_close(scores[kept], torch.tensor(values), **EXACT)
        torch.testing.assert_close(scores.softmax(-1)[kept], torch.tensor(probabilities), **EXACT)


@pytest.mark.parametrize(("name", "case"), cases("candidate_columns"))
def test_ranking_of_candidates(name, case):
    model, processor = system(name).loaded()
    prompts = [processor.chat.training_prompt(text) for text in case["texts"]]
    candidates = [list(row) for row in zip(*case["candidate_columns"], strict=True)]
    embeds = shown(case, system(name).image_embeds())
    losses = candidate_losses(model, processor, prompts, embeds, candidates, end=case["end_sym"], official=True)
    want = [list(row) for row in zip(*case["loss_per_column"], strict=True)]
    assert torch.tensor(losses).sub(torch.tensor(want)).abs().max() < 1e-4
    assert [rank(row, n) for row, n in zip(losses, case["num_cand"], strict=True)] == case["ranks"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_official_chat_through_one_switch(name):
    """Two turns of `Chat`, set to the published behaviour, are the recorded ones."""
    turns = {case["name"]: case for case in recorded(f"{name}/generation.json")["cases"]}
    first, second = turns["chat_turn1"], turns["chat_turn2"]
    model, processor = system(name).loaded()
    chat = Assistant(model, processor, official=True).chat(images()[first["images"][0][0]])
    end = first["stop_sequences"][0] == [processor.tokenizer.eos_token_id]
    for case, penalty in ((first, 1.0), (second, second["repetition_penalty"])):
        question = case["prompts"][0].split(processor.chat.user)[-1].removeprefix(f"{IMAGE} ")
        question = question.removesuffix(processor.chat.sep + processor.chat.assistant)
        assert processor.chat.render(chat.look(question).messages, official=True) == case["prompts"][0]
        if not end:  # the recorded stop sequences are not those of the family: their effect is tested above
            chat.remember(chat.look(question), case["decoded"][0])
            continue
        assert chat.ask(question, max_new_tokens=20, repetition_penalty=penalty) == case["decoded"][0]


# what is better without -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_rows_of_a_batch_are_as_if_alone(penalty):
    model = tiny_model()
    k, image = model.config.num_image_tokens, model.config.image_token_id
    rows = [[5, *[image] * k, 9], [*range(10, 24), *[image] * k, 9, 9]]
    processor = tiny_processor(model.config)
    embeds = torch.randn(2, k, 32)
    settings = {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": penalty}
    together = model.generate(**processor.pad(rows), image_embeds=embeds, **settings)
    for row, image, said in zip(rows, embeds, together, strict=True):
        alone = model.generate(input_ids=torch.tensor([row]), image_embeds=image[None], **settings)
        assert said.tolist()[: alone.shape[1]] == alone[0].tolist()


def test_new_tokens_alone_are_returned_unless_some_are_begun():
    model = tiny_model()
    embeds = torch.randn(1, 5, 32)
    plain = model.generate(inputs_embeds=embeds, max_new_tokens=4, do_sample=False)
    begun = model.generate(inputs_embeds=embeds, input_ids=torch.tensor([[7]]), max_new_tokens=4, do_sample=False)
    assert begun.tolist() == [[7, *plain[0].tolist()]]


def test_a_long_conversation_gives_up_its_oldest_words_and_keeps_its_images():
    def say(role, content):
        return {"role": role, "content": content}

    talk = [say("user", f"{IMAGE} first"), say("assistant", "a"), say("user", f"second {IMAGE}"), say("assistant", "b")]
    talk.append(say("user", "third"))
    once = without_oldest(talk)
    assert once == [say("user", f"{IMAGE} second {IMAGE}"), say("assistant", "b"), say("user", "third")]
    assert without_oldest(once) == [say("user", f"{IMAGE} {IMAGE} third")]
    assert without_oldest(without_oldest(once)) is None

    model = tiny_model()
    model.config.text_config.max_position_embeddings = 90
    processor = tiny_processor(model.config, "minigpt-v2")
    assistant = Assistant(model, processor)
    ids = assistant.engine.prompt_ids(talk, 8)
    assert len(ids) + 8 <= 90
    assert ids[0] == processor.tokenizer.bos_token_id
    assert ids.count(processor.image_token_id) == 2 * processor.num_image_tokens
    whole = processor.prompt_ids(talk)
    assert len(whole) + 8 > 90
    assert ids == processor.prompt_ids(without_oldest(talk))


def test_past_answers_are_tokenised_as_they_are_learnt():
    model = tiny_model()
    processor = tiny_processor(model.config, "minigpt-v2")
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "an answer"}, {"role": "user", "content": "r"}]
    calls = []
    tokenize = type(processor.tokenizer).__call__

    class Spy:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **kwargs):
            calls.append(text)
            return tokenize(tokenizer, text, **kwargs)

    tokenizer = processor.tokenizer
    processor.tokenizer = Spy()
    processor.prompt_ids(talk)
    assert calls == ["<s>[INST] q [/INST]", "an answer</s>", "<s>[INST] r [/INST]"]


def test_the_extra_beginning_is_an_option():
    model = tiny_model()
    processor = tiny_processor(model.config, "minigpt-v2")
    ask = [{"role": "user", "content": f"<Img>{PLACEHOLDER}</Img> q"}]
    one = processor.prompt_ids(ask)
    processor.extra_bos = True
    assert processor.prompt_ids(ask) == [1, *one]
    assert one[:2].count(1) == 1
    assert processor.prompt_ids(ask, official=True) == [1, *one]


def test_ranking_by_own_tokens_does_not_depend_on_the_company():
    model = tiny_model()
    processor = tiny_processor(model.config, "minigpt-v2")
    prompts = ["[INST] a [/INST]", "[INST] a much longer question [/INST]"]
    both = candidate_losses(model, processor, prompts, None, [["yes", "no way"], ["two", "three four", "five"]])
    assert [len(row) for row in both] == [2, 3]
    alone = candidate_losses(model, processor, prompts[:1], None, [["yes", "no way"]])[0]
    assert both[0] == pytest.approx(alone, abs=1e-5)
    ids = torch.tensor([[1, *processor.encode(prompts[0]), *processor.encode("yes</s>")]])
    logp = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1)
    own = [-logp[i - 1, ids[0, i]].item() for i in range(ids.shape[1] - 4, ids.shape[1])]
    assert alone[0] == pytest.approx(sum(own) / 4, abs=1e-5)
    assert rank([2.0, 1.0, 3.0]) == [1, 0, 2]
