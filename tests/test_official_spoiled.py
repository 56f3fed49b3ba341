"""Files that are damaged, mixed up or of another system: refused before anything is written, and the reason is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from official_files import change, checkpoint_tensors, qformer_tensors, vision_tensors, write_llm, write_system
from safetensors.torch import load_file, save_file

from minigpt4.checkpoints.loading import load_system
from minigpt4.checkpoints.official import writing
from minigpt4.checkpoints.official.exporting import export_official
from minigpt4.checkpoints.official.importing import import_official
from minigpt4.cli import app
from minigpt4.errors import UserError

KINDS = ("minigpt4-vicuna", "minigpt4-llama2", "minigptv2")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    torch.manual_seed(0)
    for kind in KINDS:
        write_system(folder / kind, kind)
    return folder


@pytest.fixture
def files(originals, tmp_path):
    """A system's files to spoil: ``files(kind)`` gives the arguments of `import_official`."""

    def copy(kind):
        shutil.copytree(originals / kind, tmp_path / kind)
        parts = {"vit": "eva_vit_g.pth", "llm": "llm", "checkpoint": "checkpoint.pth"}
        if kind == "minigpt4-vicuna":
            parts["qformer"] = "blip2.pth"
        return {k: tmp_path / kind / v for k, v in parts.items()} | {"vit_heads": 4, "output": tmp_path / "out"}

    return copy


def refused(parts, *words):
    """Importing fails with a message that has these words, and leaves nothing behind."""
    with pytest.raises(UserError) as error:
        import_official(**parts)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message
    assert not Path(parts["output"]).exists()
    assert not list(Path(parts["output"]).parent.glob(".out-*"))
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_unspoiled_files_are_taken(files, kind):
    parts = files(kind)
    account = import_official(**parts)
    assert account.kind == kind
    model, processor = load_system(parts["output"], dtype=torch.float32)
    ids = [*processor.encode("a <ImageHere>"), 5]
    out = model.generate(
        input_ids=torch.tensor([ids]),
        pixel_values=torch.randn(1, 3, model.config.image_size, model.config.image_size),
        max_new_tokens=3,
        do_sample=False,
    )
    assert out.shape[1] <= 3


def rename(old, new):
    def how(tensors):
        (name,) = [k for k in tensors if k == old]
        tensors[new] = tensors.pop(name)

    return how


@pytest.mark.parametrize(
    ("kind", "part", "old", "new"),
    [
        ("minigpt4-llama2", "vit", "blocks.1.mlp.fc2.weight", "blocks.1.mlp.fc3.weight"),
        ("minigpt4-llama2", "vit", "blocks.0.attn.q_bias", "blocks.0.attn.qq_bias"),
        ("minigpt4-vicuna", "qformer", "ln_vision.bias", "ln_visions.bias"),
        ("minigpt4-llama2", "checkpoint", "llama_proj.bias", "llama_projection.bias"),
        (
            "minigptv2",
            "checkpoint",
            "llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight",
            "llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.other.weight",
        ),
    ],
)
def test_a_renamed_key(files, kind, part, old, new):
    parts = files(kind)
    change(parts[part], rename(old, new))
    refused(parts, parts[part], new, "renamed keys")


def test_a_renamed_key_of_the_language_model(files):
    parts = files("minigpt4-llama2")
    file = parts["llm"] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up.weight"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    refused(parts, file, "model.layers.0.mlp.up.weight")


@pytest.mark.parametrize(
    ("kind", "part", "name"),
    [
        ("minigpt4-llama2", "vit", "blocks.1.norm1.bias"),
        ("minigpt4-llama2", "vit", "blocks.0.attn.v_bias"),
        ("minigpt4-vicuna", "qformer", "Qformer.bert.encoder.layer.1.output_query.dense.weight"),
        ("minigptv2", "checkpoint", "llama_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"),
        ("minigpt4-vicuna", "checkpoint", "llama_proj.bias"),
    ],
)
def test_a_missing_tensor(files, kind, part, name):
    parts = files(kind)
    change(parts[part], lambda tensors: tensors.pop(name))
    refused(parts, parts[part])


def test_swapped_projections(files, originals):
    parts = files("minigpt4-vicuna")
    shutil.copyfile(originals / "minigpt4-llama2" / "checkpoint.pth", parts["checkpoint"])
    refused(parts, parts["qformer"], "does not go with checkpoint.pth", "minigpt4-llama2", "128 = 4 x 32")
    parts = files("minigpt4-llama2")
    shutil.copyfile(originals / "minigpt4-vicuna" / "checkpoint.pth", parts["checkpoint"])
    refused(parts, parts["checkpoint"], "16 numbers", "Q-Former", "--qformer")
    torch.save({"model": checkpoint_tensors(into=64)}, parts["checkpoint"])
    refused(parts | {"kind": "minigpt4-llama2"}, parts["checkpoint"], "64 numbers")


def test_a_projection_of_another_q_former(files):
    parts = files("minigpt4-vicuna")
    torch.save({"model": checkpoint_tensors(into=24)}, parts["checkpoint"])
    refused(parts, parts["checkpoint"], "takes 24 numbers", "these files give 16")


def test_a_language_model_of_another_width_is_called_by_its_name(files):
    parts = files("minigpt4-llama2")
    torch.save({"model": checkpoint_tensors(into=128, out=5120)}, parts["checkpoint"])
    refused(parts, parts["checkpoint"], "width 5120 (13B)", "width 32")
    parts = files("minigptv2")
    change(parts["checkpoint"], lambda t: t.update({k: torch.randn(4, 5120) for k in t if k.endswith("lora_A.weight")}))
    refused(parts, parts["checkpoint"], "lora_A", "another width (13B)")


@pytest.mark.parametrize("part", ["vit", "checkpoint", "qformer", "shard"])
def test_a_truncated_file(files, part):
    parts = files("minigpt4-vicuna")
    file = parts["llm"] / "model.safetensors" if part == "shard" else parts[part]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused(parts, file, "cut short")


@pytest.mark.parametrize("part", ["vit", "checkpoint", "qformer", "llm"])
def test_another_width(files, part):
    parts = files("minigpt4-vicuna")
    if part == "vit":
        torch.save(vision_tensors(width=64), parts["vit"])
        refused(parts, parts["vit"], "reads tokens of width 32", "64")
    elif part == "qformer":
        torch.save({"model": qformer_tensors(width=24)}, parts["qformer"])
        refused(parts, parts["checkpoint"], "takes 16 numbers", "these files give 24")
    elif part == "llm":
        shutil.rmtree(parts["llm"])
        write_llm(parts["llm"], hidden_size=48, num_attention_heads=4)
        refused(parts, parts["checkpoint"], "width 32", "width 48")
    else:
        change(parts["checkpoint"], lambda t: t.update({"llama_proj.bias": torch.randn(31)}))
        refused(parts, parts["checkpoint"], "llama_proj.bias", "(31,)", "(32,)")


def test_one_tensor_of_another_width(files):
    parts = files("minigpt4-vicuna")
    change(parts["vit"], lambda t: t.update({"blocks.1.mlp.fc1.bias": torch.randn(41)}))
    refused(parts, parts["vit"], "blocks.1.mlp.fc1.bias", "another size")


def drop_adapters(tensors):
    for name in [k for k in tensors if ".lora_" in k]:
        del tensors[name]


@pytest.mark.parametrize("kind", [None, "minigptv2", "minigpt4-llama2"])
def test_lost_adapters_would_leave_it_without_images(files, kind):
    parts = files("minigptv2") | {"kind": kind}
    change(parts["checkpoint"], drop_adapters)
    refused(parts, parts["checkpoint"], "a checkpoint of minigptv2" if kind == "minigpt4-llama2" else "LoRA")


def test_lost_adapters_without_any_trace_of_them(files):
    parts = files("minigptv2") | {"kind": "minigptv2"}
    torch.save({"model": {k: v for k, v in checkpoint_tensors(into=128).items() if "proj" in k}}, parts["checkpoint"])
    refused(parts, parts["checkpoint"], "no adapters (LoRA)", "would not see")


def test_a_stage_of_the_other_family(files, originals):
    parts = files("minigpt4-llama2") | {"kind": "minigpt4-llama2"}
    shutil.copyfile(originals / "minigptv2" / "checkpoint.pth", parts["checkpoint"])
    refused(parts, parts["checkpoint"], "a checkpoint of minigptv2, not of minigpt4-llama2", "LoRA")


@pytest.mark.parametrize(
    ("slot", "given", "looks"),
    [("vit", "checkpoint", "checkpoint"), ("checkpoint", "vit", "vision encoder"), ("qformer", "vit", "vision encoder")],
)
def test_files_in_each_others_place(files, slot, given, looks):
    parts = files("minigpt4-vicuna")
    parts[slot] = parts[given]
    refused(parts, parts[given], "it looks like", looks)


@pytest.mark.parametrize(
    "name", ["tokenizer.model", "model.safetensors", "../eva_vit_g.pth", "../checkpoint.pth", "config.json"]
)
def test_a_pointer_instead_of_a_file(files, name):
    parts = files("minigpt4-llama2")
    file = (parts["llm"] / name).resolve()
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 499723\n")
    refused(parts, file, "Git LFS pointer")


def test_a_web_page_and_a_pickle_with_code_in_it(files, tmp_path):
    parts = files("minigpt4-llama2")
    parts["vit"].write_text("<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    refused(parts, parts["vit"], "web page")
    parts = files("minigpt4-vicuna")
    torch.save({"model": {"llama_proj.weight": torch.zeros(1)}, "x": shutil.rmtree}, parts["checkpoint"])
    refused(parts, parts["checkpoint"], "run code")


def test_a_missing_shard_and_missing_weights(files):
    parts = files("minigpt4-llama2")
    (parts["llm"] / "model.safetensors").unlink()
    refused(parts, parts["llm"], "no weights")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (parts["llm"] / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(parts, "model-00001-of-00002.safetensors", "no such file")


def test_a_language_model_of_the_hub(files, monkeypatch):
    parts = files("minigpt4-llama2")
    folder = parts["llm"]
    asked = {}

    def fetched(name, allow_patterns):
        asked[name] = allow_patterns
        return str(folder)

    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda name: ["a.safetensors", "a.bin", "config.json"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    import_official(**parts | {"llm": "owner/llama", "refer": True})
    assert asked == {"owner/llama": ["*.json", "tokenizer.model", "*.safetensors"]}
    assert json.loads((parts["output"] / "config.json").read_text())["text_source"] == "owner/llama"
    shutil.rmtree(parts["output"])
    refused(parts | {"llm": parts["llm"] / "none"}, "no such folder")

    def offline(name):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.list_repo_files", offline)
    refused(parts | {"llm": "owner/llama"}, "owner/llama", "no network")


def test_settings_that_do_not_go_together(files, originals):
    parts = files("minigpt4-llama2")
    refused(parts | {"extra_bos": True}, "minigptv2")
    refused(parts | {"kind": "minigpt5"}, "unknown kind")
    refused(parts | {"vit_heads": None}, parts["vit"], "--vit-heads")
    refused(parts | {"vit_heads": 5}, parts["vit"], "5 heads")
    refused(parts | {"image_size": 225}, "225")
    refused(parts | {"llm": parts["vit"]}, "--llm")
    refused(parts | {"vit": parts["vit"].with_name("none.pth")}, "no such file")
    refused(parts | {"qformer": originals / "minigpt4-vicuna" / "blip2.pth"}, "a Q-Former does not go with")


def test_nothing_is_overwritten_and_nothing_half_written_is_left(files, monkeypatch):
    parts = files("minigpt4-llama2")
    parts["output"].mkdir()
    (parts["output"] / "precious").write_text("")
    with pytest.raises(UserError, match="exists already"):
        import_official(**parts)
    (parts["output"] / "precious").unlink()
    parts["output"].rmdir()
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    refused(parts, "are needed there")
    monkeypatch.undo()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "save_file", full)
    refused(parts, "No space left")


def test_a_trained_q_former_in_a_checkpoint_takes_the_place_of_blip2s(files):
    parts = files("minigpt4-vicuna")
    further = torch.randn(1, 8, 16)
    change(parts["checkpoint"], lambda t: t.update({"query_tokens": further}))
    account = import_official(**parts)
    model, _ = load_system(parts["output"], dtype=torch.float32)
    assert torch.equal(model.connector.query_tokens.data, further)
    replaced = [names for entry in account.files for why, names in entry.unneeded.items() if "trained further" in why]
    assert replaced == [["query_tokens"]]
    export_official(parts["output"], parts["checkpoint"].with_name("again.pth"), qformer=True)
    again = torch.load(parts["checkpoint"].with_name("again.pth"), weights_only=True)["model"]
    assert torch.equal(again["query_tokens"], further)
    blip2 = torch.load(parts["qformer"], weights_only=True)["model"]
    kept = [n for n in again if n.startswith("Qformer.")]
    assert kept
    assert all(torch.equal(again[n], blip2[n]) for n in kept)


def test_a_damaged_folder_is_not_loaded(files):
    parts = files("minigptv2")
    import_official(**parts)
    file = parts["output"] / "model.safetensors"
    tensors = load_file(file)
    gone = tensors.pop("projection.bias")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weight\(s\), the first is projection.bias"):
        load_system(parts["output"], dtype=torch.float32)
    save_file(tensors | {"projection.bias": gone, "more": gone.clone()}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="unknown 1"):
        load_system(parts["output"], dtype=torch.float32)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_system(parts["output"], dtype=torch.float32)


@pytest.mark.parametrize(
    ("change_config", "reason"),
    [
        ({"concat_order": "square"}, "square"),
        ({"projection_depth": 2}, "2 layers"),
    ],
)
def test_what_the_official_code_cannot_express_is_not_exported(files, tmp_path, change_config, reason):
    parts = files("minigpt4-llama2")
    import_official(**parts)
    config = json.loads((parts["output"] / "config.json").read_text())
    (parts["output"] / "config.json").write_text(json.dumps(config | change_config))
    with pytest.raises(UserError, match=reason):
        export_official(parts["output"], tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


def test_commands(files, capsys):
    parts = files("minigptv2")
    options = [f"--{k.replace('_', '-')}={v}" for k, v in parts.items()]
    app(["import-official", *options, "--extra-bos", "--dtype", "bfloat16"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "kind: minigptv2" in said
    assert "q_proj, v_proj" in said
    _, processor = load_system(parts["output"], dtype=torch.float32)
    assert processor.extra_bos
    stored = load_file(parts["output"] / "model.safetensors")
    assert stored["language_model.lm_head.weight"].dtype == torch.bfloat16
    assert stored["projection.weight"].dtype == torch.float32
    exported = parts["output"].with_name("back.pth")
    app(["export-official", "--model", str(parts["output"]), "--output", str(exported)], standalone_mode=False)
    assert "10 tensors" in capsys.readouterr().out
    again = torch.load(exported, weights_only=True)["model"]
    first = torch.load(parts["checkpoint"], weights_only=True)["model"]
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
