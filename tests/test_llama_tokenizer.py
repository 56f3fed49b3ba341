"""The published tokenizer's behaviour, against SentencePiece itself on a vocabulary trained here."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer

from minigpt4.engine.streaming import token_text
from minigpt4.errors import UserError
from minigpt4.model import MiniGPT4ImageProcessor, MiniGPT4Processor  # (AutoTokenizer then knows the class)
from minigpt4.model.legacy_llama_tokenizer import PAD_STRING, legacy_llama_tokenizer, official_pad_id, pieces_to_text
from minigpt4.prompt.jinja import as_jinja
from minigpt4.prompt.templates import IMAGE, PLACEHOLDER

spm = pytest.importorskip("sentencepiece")

TEXTS = [
    "[INST] <Img></Img> [vqa] what colour is the dog ? [/INST] brown",
    "###Human: <Img></Img> Describe this image in detail. ###Assistant: a brown dog runs across a muddy field",
    "{<12><30><45><99>}<delim>{<5><6><70><80>} near <p>a car</p> {<9><9><20><20>}. costs $$ here, x$$y, aaaa,  bbbb ----",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 30),
        model_writer=model,
        model_type="bpe",
        vocab_size=380,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        pad_id=-1,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


@pytest.fixture(scope="module")
def sp(folder):
    return spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return legacy_llama_tokenizer(folder)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


PIECES = st.sampled_from(
    ["a", "aa", "aaa", " ", "  ", "--", "$$", "$", "dog", "[INST]", "<", ">", "\n", "é", "😀", "▁", "1", "23"]
)


@settings(max_examples=400)
@given(text=st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_ids_are_those_of_sentencepiece(tokenizer, sp, text):
    if any(mark in text for mark in ("<s>", "</s>", "<unk>")):
        return  # written-out special tokens are taken apart first: see below
    assert ids(tokenizer, text) == sp.encode(text)


@settings(max_examples=400)
@given(data=st.data())
def test_text_is_that_of_sentencepiece_even_for_broken_bytes(sp, data):
    some = [3 + b for b in (0xE2, 0x98, 0x83, 0xF0, 0x9F, 0x8A, 0xCE, 0x2B, 0xED, 0xA0)] + [sp.piece_to_id("▁")]
    chosen = data.draw(st.lists(st.integers(3, 379) | st.sampled_from(some), max_size=10))
    assert pieces_to_text(sp.id_to_piece(i) for i in chosen) == sp.decode(chosen)


def test_special_tokens_are_taken_out_and_text_after_them_begins_anew(tokenizer):
    inst = ids(tokenizer, "[INST] x")
    assert ids(tokenizer, "<s>[INST] x") == [1, *inst]
    assert ids(tokenizer, "a dog</s>") == [*ids(tokenizer, "a dog"), 2]
    assert ids(tokenizer, "dog </s> dog")[-3:] == [2, *ids(tokenizer, " dog")][-3:]
    assert tokenizer("<s>[INST] x")["input_ids"] == [1, 1, *inst]
    assert ids(tokenizer, "") == []


def test_specials_in_text_where_the_official_tokenizer_puts_a_blank(tokenizer):
    assert tokenizer.decode(ids(tokenizer, "<s>[INST] x")) == "<s>[INST] x"
    assert tokenizer.decode(ids(tokenizer, "a dog</s>")) == " a dog</s>"
    assert tokenizer.decode(ids(tokenizer, "a dog. </s> again"), skip_special_tokens=True) == "a dog.   again"
    assert tokenizer.batch_decode([[1, 2], ids(tokenizer, "a dog")], skip_special_tokens=True) == ["", "a dog"]
    assert tokenizer.decode([tokenizer.vocab_size, *ids(tokenizer, "dog")]) == "dog"  # an image token has no text


def test_the_pad_string_is_text_unless_it_is_made_the_pad_token(folder):
    tokenizer = legacy_llama_tokenizer(folder)
    pad = official_pad_id(tokenizer)
    answer = ids(tokenizer, "x$$y")
    assert pad in answer
    assert tokenizer.decode(answer, skip_special_tokens=True) == "x$$y"
    tokenizer.pad_token = PAD_STRING
    assert tokenizer.pad_token_id == pad
    assert ids(tokenizer, "x$$y") == answer
    assert tokenizer.decode(answer, skip_special_tokens=True) == "xy"


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(tokenizer)
    for text in TEXTS:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.decode([3 + 0xCE, 3 + 0x8A, 3 + 0x8A]) == "\u038a\ufffd"


def test_a_converted_tokenizer_serves_as_well(tokenizer, tmp_path):
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = legacy_llama_tokenizer(tmp_path)
    for text in TEXTS:
        assert ids(again, text) == ids(tokenizer, text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "tokenizer.model",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:9e\n",
            r"tokenizer\.model: only a Git LFS",
        ),
        ("tokenizer.model", b"nonsense", r"tokenizer\.model: not a SentencePiece model"),
        ("tokenizer.json", b"{}", r"tokenizer\.json: not the tokenizer\.json of a LLaMA"),
        (
            "tokenizer.json",
            json.dumps({"model": {"merges": [], "vocab": {"a": 0}, "byte_fallback": False}}).encode(),
            "no byte",
        ),
        (
            "tokenizer.json",
            json.dumps({"model": {"merges": [], "vocab": {"a": 0}, "byte_fallback": True}}).encode(),
            "first three",
        ),
        ("other", b"", "no tokenizer.model"),
    ],
)
def test_what_is_no_tokenizer_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        legacy_llama_tokenizer(tmp_path)


@pytest.mark.parametrize("extra_bos", [False, True])
@pytest.mark.parametrize("template", ["vicuna-v0", "llama-2", "minigpt-v2"])
def test_a_question_in_jinja_has_our_ids_in_one_piece(folder, template, extra_bos):
    """What a server reads of an exported folder: one text, of which the placeholder is a token."""
    tokenizer = legacy_llama_tokenizer(folder)
    processor = MiniGPT4Processor(MiniGPT4ImageProcessor(), tokenizer, template=template, extra_bos=extra_bos)
    asked = "[vqa] what colour is the dog ?"
    ours = processor.prompt_ids([{"role": "user", "content": f"{IMAGE} {asked}"}])
    jinja = as_jinja(processor.chat, processor.special_texts, tokenizer.bos_token, extra_bos)
    content = [{"type": "image"}, {"type": "text", "text": asked}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], chat_template=jinja, tokenize=False, add_generation_prompt=True
    )
    tokenizer.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)], special_tokens=True)
    place = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    assert place == processor.image_token_id
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [i for one in ids for i in [one] * (processor.num_image_tokens if one == place else 1)] == ours


def test_texts_of_tokens_joined_are_the_text(tokenizer):
    """Decoded by itself, a token loses the blank that it begins with, and clients that join them had words run together."""
    text = "a brown dog runs across a muddy field"
    row = ids(tokenizer, text)
    assert "".join(token_text(tokenizer, token) for token in row) == " " + text
    assert token_text(tokenizer, tokenizer.eos_token_id) == ""
    assert token_text(tokenizer, tokenizer.eos_token_id, special=True) == tokenizer.eos_token
