"""What the published systems read: pixels, ids and prompts, to the last bit."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from official_systems import TOKENIZERS, tokenizer_of
from PIL import Image
from recorded import ROOT, recorded
from safetensors.torch import load_file

from minigpt4.engine.official import batch_text, chat_text, stop_sequences
from minigpt4.errors import UserError
from minigpt4.model.legacy_llama_tokenizer import legacy_llama_tokenizer, official_pad_id, use_official_pad
from minigpt4.model.processing import MiniGPT4ImageProcessor, MiniGPT4Processor
from minigpt4.prompt.templates import IMAGE, TEMPLATES

CHATS = {"vicuna_v0": "vicuna-v0", "llama2_v1": "llama-2", "minigptv2": "minigpt-v2"}


@pytest.mark.parametrize("facts", recorded("common/processor.json"), ids=lambda f: f"{f['file']}-{f['size']}")
def test_pixels_are_equal_bit_for_bit(facts):
    processor = MiniGPT4ImageProcessor(facts["size"])
    pixels = processor(ROOT / "common" / "images" / facts["file"])["pixel_values"][0]
    assert pixels.double().sum().item() == pytest.approx(facts["tensor_sum"], rel=1e-9)
    assert pixels.double().abs().sum().item() == pytest.approx(facts["tensor_abs_sum"], rel=1e-9)
    name = f"{facts['file'].removesuffix('.png')}/{facts['size']}"
    stored = load_file(ROOT / "common" / "processor.safetensors")
    compared = 0
    for key, want in stored.items():
        if key.startswith(f"{name}/"):
            have = pixels if key.endswith("/full") else pixels[:, ::7, ::7]
            assert torch.equal(have, want), key
            compared += 1
    assert compared


def test_resized_images_are_the_recorded_ones():
    folders = list((ROOT / "common" / "images").glob("resized_*"))
    for folder in folders:  # in a full set
        processor = MiniGPT4ImageProcessor(int(folder.name.removeprefix("resized_")))
        for file in folder.iterdir():
            with_bytes = np.asarray(Image.open(file).convert("RGB"))
            assert np.array_equal(processor.resize(ROOT / "common" / "images" / file.name), with_bytes), file


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_recorded_string(name):
    tokenizer, facts = tokenizer_of(name), recorded(f"{name}/tokenizer.json")
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [
        facts["bos"],
        facts["eos"],
        facts["unk"],
    ]
    assert len(tokenizer) == facts["vocab_size"]
    assert official_pad_id(tokenizer) == facts["pad_token_id"]
    use_official_pad(tokenizer)
    for case in facts["cases"]:
        ids = tokenizer(case["text"], add_special_tokens=False)["input_ids"]
        assert ids == case["ids"], case["text"]
        assert tokenizer(case["text"])["input_ids"] == case["ids_with_bos"], case["text"]
        assert tokenizer.decode(ids) == case["decode"], case["text"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == case["decode_skip_special"], case["text"]


LLAMA = os.environ.get("MINIGPT4_LLAMA_TOKENIZER")


@pytest.mark.skipif(not LLAMA, reason="MINIGPT4_LLAMA_TOKENIZER names no folder with LLaMA's own tokenizer.model")
def test_every_prompt_piece_with_the_released_vocabulary():
    tokenizer, facts = legacy_llama_tokenizer(Path(str(LLAMA))), recorded("common/llama32k_token_ids.json")
    assert official_pad_id(tokenizer) == facts["pad_token_id"]
    for case in facts["cases"]:
        assert tokenizer(case["text"], add_special_tokens=False)["input_ids"] == case["ids"], case["text"]
        assert tokenizer(case["text"])["input_ids"] == case["ids_with_bos"], case["text"]
    assert stop_sequences(tokenizer, ("###",)) == [[2], [835], [2277, 29937]]


# prompts --------------------------------------------------------------------------------------------------------------


def messages_of(actions):
    """A conversation in our form from the recorded actions of the published chat."""
    messages = []
    for action, *text in actions:
        if action == "upload":
            messages.append({"role": "user", "content": IMAGE})
        elif action == "ask":
            last = messages[-1] if messages else {"role": "", "content": ""}
            if last["role"] == "user" and last["content"].endswith("</Img>"):
                last["content"] += " " + text[0]
            else:
                messages.append({"role": "user", "content": text[0]})
        elif action == "answer":
            messages.append({"role": "assistant", "content": text[0]})
    return messages


@pytest.mark.parametrize(
    "case", recorded("common/chat_prompts.json")["cases"], ids=lambda c: f"{c['conversation']}-{c['case']}"
)
def test_prompts_byte_for_byte(case):
    template = TEMPLATES[CHATS[case["conversation"]]]
    if case["case"] == "evaluation_wrapper":
        asked = [[{"role": "user", "content": f"{IMAGE} {text}"}] for text in case["texts"]]
        assert [template.render(messages) for messages in asked] == case["prompts"]
        return
    messages, opened = messages_of(case["actions"]), case["actions"][-1] == ["open"]
    assert template.render(messages, open_turn=opened, official=True) == case["prompt"]
    if not any(m["role"] == "assistant" for m in messages):  # without a past, ours is the published one
        assert template.render(messages, open_turn=opened) == case["prompt"]


def test_constants_of_the_official_chats():
    for name, facts in recorded("common/chat_prompts.json")["conversations"].items():
        template = TEMPLATES[CHATS[name]]
        assert template.system == facts["system"]
        assert [template.user, template.assistant] == facts["roles"]
        assert template.sep == facts["sep"]


@pytest.mark.parametrize(
    ("name", "learnt", "said"),
    [
        ("minigpt-v2", "[INST] q [/INST]a</s><s>[INST] r [/INST]", "<s>[INST] q [/INST]a</s><s>[INST] r [/INST]"),
        ("llama-2", "[INST] q [/INST] a</s><s>[INST] r [/INST] ", "<s>[INST] q [/INST] a</s><s>[INST] r [/INST] "),
        (
            "vicuna-v0",
            "###Human: q ###Assistant: a###Human: r ###Assistant: ",
            "Human: q###Assistant: a###Human: r###Assistant: ",
        ),
    ],
)
def test_our_history_closes_answers_as_training_does(name, learnt, said):
    template = TEMPLATES[name]
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]
    assert template.render(talk).removeprefix(template.system + template.sep) == said
    assert template.training_prompt("q") + "a" + template.end + template.training_prompt("r", first=False) == learnt


def test_systems_without_tasks_are_not_asked_with_identifiers():
    assert [TEMPLATES[name].caption for name in ("vicuna-v0", "llama-2")] == ["Describe this image in detail."] * 2
    assert TEMPLATES["minigpt-v2"].caption.startswith("[caption] ")
    assert TEMPLATES["chatml"].caption == TEMPLATES["minigpt-v2"].caption


def test_the_official_prompt_wants_a_official_chat():
    tokenizer = tokenizer_of(TOKENIZERS[0])
    processor = MiniGPT4Processor(MiniGPT4ImageProcessor(), tokenizer, template="chatml")
    with pytest.raises(UserError, match="no published chat of the format 'chatml'"):
        processor.prompt_ids([{"role": "user", "content": "q"}], official=True)


def test_answers_are_trimmed_as_official():
    assert chat_text(" a dog.### Human: more###Assistant: x") == "a dog."
    assert chat_text("Assistant: a dog ") == "a dog"
    assert batch_text("<s> yes </s> more") == "yes"
    assert batch_text("[INST] q [/INST] yes") == "yes"
