"""The published systems, imported and compared with what the published implementation did with them."""

import pytest
import torch
from official_systems import EXACT, SYSTEMS, images, pixels, system
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from minigpt4.checkpoints.loading import load_system, save_trained
from minigpt4.checkpoints.official.exporting import export_official
from minigpt4.checkpoints.official.importing import import_official
from minigpt4.data.examples import IGNORE, build_example
from minigpt4.errors import UserError
from minigpt4.model.adapters import set_lora
from minigpt4.model.legacy_llama_tokenizer import official_pad_id
from minigpt4.prompt.templates import PLACEHOLDER
from minigpt4.train.setup import parameter_groups

KINDS = {"pretrain_vicuna0": "minigpt4-vicuna", "pretrain_llama2": "minigpt4-llama2", "pretrain": "minigptv2"}


@pytest.fixture(params=SYSTEMS)
def recorded_system(request):
    return system(request.param)


def test_account_is_complete(recorded_system):
    files = recorded_system.files
    account = recorded_system.account
    stored = torch.load(files / "checkpoint_0.pth", weights_only=True)
    assert account.kind == KINDS[stored["config"]["model"]["model_type"]]
    counts = {entry.file: entry.used + sum(map(len, entry.unneeded.values())) for entry in account.files}
    assert counts[files / "eva_vit_g.pth"] == len(torch.load(files / "eva_vit_g.pth", weights_only=True))
    assert counts[files / "checkpoint_0.pth"] == len(stored["model"])
    weights = [f for f in files.glob("llm/*") if f.suffix in (".bin", ".safetensors")]
    for file in weights:
        there = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        assert counts[file] == len(there)
    assert len(counts) == 2 + len(weights) + (files / "blip2_pretrained_flant5xxl.pth").exists()
    initial = {"vision_tower.post_layernorm.weight", "vision_tower.post_layernorm.bias"}
    assert set(account.initial) == (set() if account.kind == "minigpt4-vicuna" else initial)
    model, _ = recorded_system.load(merge=False)
    assert account.filled + len(account.initial) == len(model.state_dict())
    unneeded = [name for entry in account.files for names in entry.unneeded.values() for name in names]
    assert all(
        "inv_freq" in n or "position_ids" in n or n.startswith(("head", "fc_norm", "t5_proj", "blocks.3")) for n in unneeded
    )


def test_plain_transformers_reads_the_folder(recorded_system):
    model = AutoModelForImageTextToText.from_pretrained(recorded_system.folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(recorded_system.folder)
    ours, our_processor = recorded_system.load(merge=False)
    assert all(torch.equal(a, ours.state_dict()[name]) for name, a in model.state_dict().items())
    text = f"<s>[INST] <Img>{PLACEHOLDER}</Img> what? [/INST]"
    assert processor(images=images()[:1], text=text)["input_ids"].tolist() == [our_processor.encode(text)]


@torch.no_grad()
def test_every_stage_of_a_image(recorded_system):
    model, processor = recorded_system.loaded()
    want = recorded_system.tensors("encode.safetensors")
    shown = pixels(processor)
    out = model.vision_tower(shown[:1], output_hidden_states=True)
    have = {
        "vit_out": out.hidden_states[-1],
        "ln_vision_out": out.last_hidden_state,
        "qformer_out": model.get_connector_features(out.last_hidden_state),
        "image_embeds": model.get_image_features(shown),
        "pos_embed_after_load": model.vision_tower.embeddings.position_embedding,
    }
    assert want
    for name, tensor in want.items():
        torch.testing.assert_close(have[name], tensor, **EXACT, msg=lambda m, name=name: f"{name}: {m}")


# training -----------------------------------------------------------------------------------------------------------


def examples_of(sample, processor):
    """The recorded inputs of a training batch as examples, built with the published treatment of the pad string."""
    settings = {
        "end": sample["end_sym"],
        "bos": True,
        "max_txt_len": sample["max_txt_len"],
        "max_context_len": sample["max_context_len"],
        "official_pad": official_pad_id(processor.tokenizer),
    }

    def asked(question):
        return sample["prompt_template"].replace("{}", question) if sample["chat_template"] else question

    for i in range(len(sample.get("answer") or sample["conv_a"])):
        if "conv_q" in sample:
            first, *later = map(asked, sample["conv_q"][i].split(sample["connect_sym"][i]))
            answer, *answers = sample["conv_a"][i].split(sample["connect_sym"][i])
            turns = [("<s>" + question, a) for question, a in zip(later, answers, strict=True)]
            yield build_example(processor, first, [answer], turns, **settings)
        else:
            questions = sample.get("instruction_input")
            prompt = asked(questions[i]) if questions else sample.get("prompt_used", PLACEHOLDER)
            yield build_example(processor, prompt, [sample["answer"][i]], **settings)


def batch_of(examples, pad, width):
    """Rows padded on the right to a width: ids, labels, attention."""
    ids, labels, mask = [], [], []
    for example in examples:
        (branch,) = example.branches
        prefix, rest = example.prefix_ids, width - len(example.prefix_ids) - len(branch.ids)
        ids.append(prefix + branch.ids + [pad] * rest)
        labels.append([IGNORE] * len(prefix) + branch.labels + [IGNORE] * rest)
        seen = [int(i not in branch.hidden) for i in range(len(branch.ids))]
        mask.append([1] * len(prefix) + seen + [0] * rest)
    return torch.tensor(ids), torch.tensor(labels), torch.tensor(mask)


def our_gradient(model, name):
    """The gradient that the recordings call `name`."""
    if name.startswith("llama_proj."):
        return model.projection.get_parameter(name.removeprefix("llama_proj.")).grad
    layer, _, leaf = name.rpartition(".lora_")
    return model.language_model.get_parameter(f"model.{layer}.lora_{leaf[0]}.default.weight").grad


def trainable(recorded_system):
    model, processor = recorded_system.load(merge=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("projection.") or ".lora_" in name)
    return model, processor


def test_every_training_sample(recorded_system):
    model, processor = trainable(recorded_system)
    tensors = recorded_system.tensors("training.safetensors")
    shown = pixels(processor)
    compared = 0
    for sample in recorded_system.json("training.json")["samples"]:
        where, width = sample["name"], len(sample["input_ids"][0])
        pad = official_pad_id(processor.tokenizer)
        ids, labels, mask = batch_of(examples_of(sample, processor), pad, width)
        image = processor.image_token_id
        assert ids.masked_fill(ids == image, -1).tolist() == sample["input_ids"], where
        assert labels.tolist() == sample["labels"], where
        assert mask.tolist() == sample["attention_mask"], where
        used = [sample["images"][span["image"]] for span in sample["image_spans"]]
        model.zero_grad()
        out = model(input_ids=ids, labels=labels, attention_mask=mask, pixel_values=shown[used] if used else None)
        assert out.loss.item() == pytest.approx(sample["loss"], abs=1e-4), where
        logp = torch.log_softmax(out.logits, -1).gather(1, labels[labels != IGNORE][:, None])[:, 0]
        want = torch.tensor([p for row in sample["label_logprobs"] for p in row])
        torch.testing.assert_close(logp, want, **EXACT)
        sums = torch.stack([-row.sum() for row in logp.split((labels != IGNORE).sum(1).tolist())])
        torch.testing.assert_close(sums / (width - 1), torch.tensor(sample["loss_reduction_none"]), **EXACT)
        out.loss.backward()
        for key, tensor in tensors.items():
            if not key.startswith(f"{where}/"):
                continue
            name = key.removeprefix(f"{where}/")
            compared += 1
            if name == "logits_at_label_positions":
                torch.testing.assert_close(out.logits, tensor, **EXACT)
            else:
                name = name.removeprefix("grad.")
                limit = 1e-3 if ".lora_" in name else 1e-4
                torch.testing.assert_close(
                    our_gradient(model, name), tensor, atol=limit, rtol=0, msg=lambda m, k=key: f"{k}: {m}"
                )
    assert compared == len(tensors)


def test_three_optimizer_steps(recorded_system, tmp_path):
    model, processor = trainable(recorded_system)
    run = recorded_system.json("adamw.json")
    shown = pixels(processor)
    v2 = recorded_system.facts["lora"] is not None
    end = "###" if recorded_system.account.kind == "minigpt4-vicuna" else "</s>"

    def loss_of(batch):
        questions = (
            [processor.chat.training_prompt(q) for q in batch["instruction_input"]] if v2 else [batch["prompt_used"]] * 2
        )
        examples = [
            build_example(processor, q, [a], end=end, bos=True) for q, a in zip(questions, batch["answer"], strict=True)
        ]
        width = max(len(e.prefix_ids) + len(e.branches[0].ids) for e in examples)
        ids, labels, mask = batch_of(examples, 0, width)
        return model(input_ids=ids, labels=labels, attention_mask=mask, pixel_values=shown[batch["images"]]).loss

    optimizer = torch.optim.AdamW(parameter_groups(model, run["weight_decay"]), betas=run["betas"], eps=run["eps"])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [g["weight_decay"] for g in run["groups"]]
    assert [len(g["params"]) for g in optimizer.param_groups] == [len(g["params"]) for g in run["groups"]]
    for batch, step in zip(run["batches"], run["steps"], strict=True):
        for group in optimizer.param_groups:
            group["lr"] = step["lr"]
        loss = loss_of(batch)
        assert loss.item() == pytest.approx(step["loss_before_step"], abs=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert [loss_of(b).item() for b in run["batches"]] == pytest.approx(run["loss_after_3_steps_per_batch"], abs=1e-4)
    want = torch.load(recorded_system.files / "checkpoint_after_3_steps.pth", weights_only=True)["model"]
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    names = export_official(tmp_path, tmp_path / "out.pth")
    have = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert set(names) == {n for n in want if not n.endswith(("inv_freq", "position_ids"))}
    for name in names:
        torch.testing.assert_close(have[name], want[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}")


# in and out again ---------------------------------------------------------------------------------------------------


def test_round_trip_is_exact(recorded_system, tmp_path):
    export_official(recorded_system.folder, tmp_path / "again.pth")
    first = torch.load(recorded_system.files / "checkpoint_0.pth", weights_only=True)["model"]
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    left_out = set(first) - set(again)
    assert all(name.endswith(("inv_freq", "position_ids")) for name in left_out)
    assert all(torch.equal(again[n], first[n]) and again[n].dtype == first[n].dtype for n in again)
    account = import_official(**recorded_system.parts(checkpoint=tmp_path / "again.pth"), output=tmp_path / "folder")
    assert account.kind == recorded_system.account.kind
    for file in ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json"):
        assert (tmp_path / "folder" / file).read_bytes() == (recorded_system.folder / file).read_bytes(), file


def test_both_layouts_of_adapter_keys_are_one(tmp_path):
    systems = [s for s in map(system, SYSTEMS) if s.facts["lora"]]
    assert systems
    for recorded_system in systems:
        stored = torch.load(recorded_system.files / "checkpoint_0.pth", weights_only=True)
        for matrix in "AB":
            old, new = f".lora_{matrix}.weight", f".lora_{matrix}.default.weight"
            stored["model"] = {k.replace(old, new): v for k, v in stored["model"].items()}
        assert any(".default." in name for name in stored["model"])
        torch.save(stored, tmp_path / "newer.pth")
        import_official(**recorded_system.parts(checkpoint=tmp_path / "newer.pth"), output=tmp_path / "folder")
        again = (tmp_path / "folder" / "model.safetensors").read_bytes()
        assert again == (recorded_system.folder / "model.safetensors").read_bytes()


def test_the_language_model_may_stay_where_it_is(recorded_system, tmp_path):
    import_official(**recorded_system.parts(), output=tmp_path / "made", refer=True)
    (tmp_path / "made").rename(tmp_path / "moved")
    model, processor = load_system(tmp_path / "moved", dtype=torch.float32)
    whole, whole_processor = recorded_system.loaded()
    assert processor.encode("<s>[INST] x$$y</s>") == whole_processor.encode("<s>[INST] x$$y</s>")
    ids = torch.randint(3, 500, (1, 7))
    torch.testing.assert_close(model(input_ids=ids).logits, whole(input_ids=ids).logits)
    shown = pixels(processor)[:1]
    torch.testing.assert_close(model.get_image_features(shown), whole.get_image_features(shown))
    assert len(export_official(tmp_path / "moved", tmp_path / "out.pth")) == len(
        export_official(recorded_system.folder, tmp_path / "whole.pth")
    )


@pytest.mark.parametrize("rank", ["the same", "another"])
def test_training_goes_on_from_an_imported_system(recorded_system, tmp_path, rank):
    """What is trained on top of an imported folder, and stored beside it, is what was trained: no adapter counts twice."""
    lora = recorded_system.facts["lora"]
    if lora is None and rank == "another":
        return  # nothing to begin anew
    model, processor = trainable(recorded_system)
    model.config.base_source = str(recorded_system.folder)
    if rank == "another":
        wanted = model.config.lora | {"r": 2}
        set_lora(model.language_model, model.config.lora, wanted)
        model.config.lora = wanted
        model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("projection.") or ".lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    save_trained(model, processor, tmp_path / "trained")
    ids = torch.randint(3, 500, (2, 9))
    want = model(input_ids=ids).logits
    for merge in (True, False):
        again, its_processor = load_system(tmp_path / "trained", dtype=torch.float32, merge=merge)
        torch.testing.assert_close(again(input_ids=ids).logits, want, atol=1e-4, rtol=1e-4)
        assert torch.equal(again.projection.weight, model.projection.weight)
        assert its_processor.encode("<s>[INST] a</s>") == processor.encode("<s>[INST] a</s>")
    if rank == "another":
        with pytest.raises(UserError, match="adapters of an earlier stage"):
            export_official(tmp_path / "trained", tmp_path / "out.pth")
    else:
        assert export_official(tmp_path / "trained", tmp_path / "out.pth")
