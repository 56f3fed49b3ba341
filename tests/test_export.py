"""A system as one plain folder: what others read of it is what we say."""

import json
import subprocess
import sys

import pytest
import torch
from commands import here, refused, run, world  # noqa: F401  (fixtures)
from conftest import tiny_config, tiny_folder, tiny_model, tiny_processor, tiny_tokenizer
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from minigpt4.checkpoints.export import export
from minigpt4.checkpoints.loading import load_system, save_trained
from minigpt4.errors import UserError
from minigpt4.inference.assistant import load
from minigpt4.prompt.jinja import as_jinja
from minigpt4.prompt.templates import PLACEHOLDER, TEMPLATES

OWN = (  # a tokenizer's format, with strings alone as content
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
IMAGE, TEXT = {"type": "image"}, {"type": "text", "text": "What is [it]?\n"}
HOSTILE = {"type": "text", "text": f"a {PLACEHOLDER} b</s>c <|im_end|>####### <s\n##### Title ########"}
CONVERSATIONS = {
    "text": [("user", "Hi 'you' \\n {{ x }}")],
    "one image": [("user", [IMAGE, TEXT])],
    "images anywhere": [("user", [TEXT, IMAGE, {"type": "image_url", "image_url": {"url": "x"}}, TEXT])],
    "several turns": [("user", [IMAGE, TEXT]), ("assistant", "A dog."), ("user", "Where?"), ("assistant", "There.")],
    "hostile": [("user", [IMAGE, HOSTILE]), ("assistant", [HOSTILE]), ("user", [HOSTILE])],
}


def processor_of(template):
    processor = tiny_processor(tiny_config(), template)
    if template == "tokenizer":
        processor.tokenizer.chat_template = OWN
    return processor


def ids_of_text(processor, text):
    """What a program reads of a rendered conversation that knows the placeholder as a token alone."""
    ids = []
    for i, piece in enumerate(text.split(PLACEHOLDER)):
        ids += [processor.image_token_id] * processor.num_image_tokens if i else []
        ids += processor.tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def our_ids(processor, conversation, open_turn):
    shown = Image.new("RGB", (8, 8))
    messages = []
    for message in conversation:
        content = message["content"]
        parts = content if isinstance(content, str) else [p if p is TEXT or p is HOSTILE else _shown(shown) for p in content]
        messages.append({"role": message["role"], "content": parts})
    out = processor.apply_chat_template(messages, add_generation_prompt=open_turn, tokenize=True, return_tensors=None)
    return out[0]


def _shown(image):
    return {"type": "image", "image": image}


@pytest.mark.parametrize("open_turn", [True, False])
@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("template", [*TEMPLATES, "tokenizer"])
def test_the_template_in_jinja_gives_our_ids(template, name, open_turn):
    processor = processor_of(template)
    conversation = [{"role": role, "content": content} for role, content in CONVERSATIONS[name]]
    for extra_bos in (False, True):
        processor.extra_bos = extra_bos
        jinja = as_jinja(processor.chat, processor.special_texts, "<s>", extra_bos)
        text = processor.tokenizer.apply_chat_template(
            conversation, chat_template=jinja, tokenize=False, add_generation_prompt=open_turn
        )
        assert ids_of_text(processor, text) == our_ids(processor, conversation, open_turn)
        assert text.count(PLACEHOLDER) == sum(p is not TEXT and p is not HOSTILE for m in conversation for p in _parts(m))


def _parts(message):
    return [] if isinstance(message["content"], str) else message["content"]


def test_roles_and_parts_that_there_are_not_are_refused():
    processor = processor_of("chatml")
    jinja = as_jinja(processor.chat, processor.special_texts)
    for message in ({"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "video"}]}):
        with pytest.raises(Exception, match="system|video"):
            processor.tokenizer.apply_chat_template([message], chat_template=jinja, tokenize=False)


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    """A whole folder, and a trained one with adapters that changes it."""
    folder = tmp_path_factory.mktemp("systems")
    torch.manual_seed(0)
    tiny_folder(folder / "whole")
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "down_proj"]}
    model = tiny_model(lora=lora, base_source=str(folder / "whole"))
    save_trained(model, tiny_processor(model.config), folder / "trained")
    (folder / "photo.png").parent.mkdir(exist_ok=True)
    Image.linear_gradient("L").convert("RGB").save(folder / "photo.png")
    return folder


SAID = [{"type": "image", "path": "photo.png"}, {"type": "text", "text": "What is it?"}]


@pytest.mark.parametrize("kind", ["whole", "trained"])
def test_others_answer_from_it_as_we_do(systems, tmp_path, kind):
    out = export(systems / kind, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    config = json.loads((out / "config.json").read_text())
    assert config["lora"] is None
    assert not {config["vision_source"], config["text_source"], config["base_source"]} - {None}
    assert str(systems) not in "".join(path.read_text() for path in out.glob("*.json"))
    settings = json.loads((out / "generation_config.json").read_text())
    assert (settings["temperature"], settings["do_sample"], settings["eos_token_id"]) == (0.0, False, 2)

    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer(PLACEHOLDER, add_special_tokens=False)["input_ids"] == [config["image_token_id"]]
    assert PLACEHOLDER in tokenizer.all_special_tokens or tokenizer.added_tokens_decoder[config["image_token_id"]].special

    model = AutoModelForImageTextToText.from_pretrained(out).eval()
    processor = AutoProcessor.from_pretrained(out)
    said = [{"role": "user", "content": [SAID[0] | {"path": str(systems / "photo.png")}, SAID[1]]}]
    inputs = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=True)
    ours, _ = load_system(systems / kind, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, ours(**inputs_of(systems, kind, said)).logits, atol=1e-4, rtol=0)
    answer = processor.batch_decode(model.generate(**inputs, max_new_tokens=12), skip_special_tokens=True)[0]
    expected = load(systems / kind).ask(systems / "photo.png", "What is it?", max_new_tokens=12)
    assert answer.strip() == str(expected)
    assert str(load(out).ask(systems / "photo.png", "What is it?", max_new_tokens=12)) == str(expected)
    pipe = pipeline("image-text-to-text", model=str(out))
    (told,) = pipe(text=said, max_new_tokens=12, return_full_text=False)
    assert told["generated_text"].strip() == str(expected)


def inputs_of(systems, kind, said):
    _, processor = load_system(systems / kind, dtype=torch.float32)
    return processor.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=True)


def test_a_tokenizer_with_its_own_format(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "in")
    processor_of("tokenizer").save_pretrained(tmp_path / "in")
    out = export(tmp_path / "in", tmp_path / "out")
    processor = AutoProcessor.from_pretrained(out)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photo.png")
    said = [{"role": "user", "content": [{"type": "image", "path": str(tmp_path / "photo.png")}, TEXT]}]
    text = processor.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    ids = our_ids(processor_of("tokenizer"), [{"role": "user", "content": [IMAGE, TEXT]}], True)
    new = {model.config.image_token_id: processor.image_token_id}
    assert ids_of_text(processor, text) == [new.get(i, i) for i in ids]
    assert processor.apply_chat_template(said, add_generation_prompt=True, tokenize=True).tolist() == [
        [new.get(i, i) for i in ids]
    ]
    assert str(load(out).ask(tmp_path / "photo.png", "Hm?", max_new_tokens=6)) == str(
        load(tmp_path / "in").ask(tmp_path / "photo.png", "Hm?", max_new_tokens=6)
    )


def test_half_precision_is_written_when_asked_for(systems, tmp_path):
    out = export(systems / "whole", tmp_path / "out", torch.bfloat16)
    assert next(AutoModelForImageTextToText.from_pretrained(out).parameters()).dtype == torch.bfloat16


def test_what_cannot_be_exported_is_said_in_one_line(systems, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises(UserError, match="there: is there already; name a new folder to write"):
        export(systems / "whole", tmp_path / "there")
    with pytest.raises(UserError, match="no such folder"):
        export(tmp_path / "nowhere", tmp_path / "out")
    big = tiny_tokenizer()
    big.add_tokens([f"<{i}>" for i in range(40)])
    processor = tiny_processor(tiny_config())
    model = tiny_model()
    model.save_pretrained(tmp_path / "big")
    processor.tokenizer = big
    processor.save_pretrained(tmp_path / "big")
    with pytest.raises(UserError, match="the tokenizer has 142 tokens, but the language model 128 words"):
        export(tmp_path / "big", tmp_path / "out")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(UserError, match="out: cannot be written .No space left on device"):
        export(systems / "whole", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "there"]


def test_answers_that_end_at_a_text_are_told_of(systems, tmp_path, caplog):
    tiny_model().save_pretrained(tmp_path / "in")
    processor_of("vicuna-v0").save_pretrained(tmp_path / "in")
    export(tmp_path / "in", tmp_path / "out")
    assert "answers of this chat format end at a text: generate needs stop_strings=['###'] and the tokenizer" in caplog.text


def test_the_command_and_what_reading_it_imports(run, here):
    status, out, err = run("export", "out", "--model", "base")
    assert status == 0, err
    assert out == 'out: ready; after "import minigpt4.model": pipeline("image-text-to-text", model="out")\n'
    assert refused(run("export", "out", "--model", "base")) == "out: is there already; name a new folder to write"
    program = """
import sys, minigpt4.model
from transformers import AutoModelForImageTextToText, AutoProcessor
AutoProcessor.from_pretrained(sys.argv[1]); AutoModelForImageTextToText.from_pretrained(sys.argv[1])
print(*{name.split(".")[1] for name in sys.modules if name.startswith("minigpt4.")})
"""
    done = subprocess.run([sys.executable, "-c", program, "out"], capture_output=True, text=True)
    assert set(done.stdout.split()) <= {"model", "prompt", "media", "io", "errors"}, done.stderr
    assert "model" in done.stdout, done.stderr
