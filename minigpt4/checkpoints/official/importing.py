"""Published files in, one folder out that `minigpt4.load` and ``from_pretrained`` read.

Everything is checked before anything is written, and what is written is written piece by piece: memory stays near one shard
of the output, whatever the size of the model.
"""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from ...errors import UserError
from ...io.atomic import saying, write_folder
from ...io.hub import is_hub_id
from ...model.configuration import MiniGPT4Config
from ...model.legacy_llama_tokenizer import legacy_llama_tokenizer
from ...model.modeling import MiniGPT4ForConditionalGeneration
from ...model.processing import MiniGPT4ImageProcessor, MiniGPT4Processor
from . import sizes
from .account import Account, Plan, Source
from .files import TorchFile, check_present, weights_of_folder
from .keys import LLM, VISION, checkpoint_place, connector_place, llm_place, vision_place
from .writing import Progress, Writer


def import_official(
    vit: str | os.PathLike,
    llm: str | os.PathLike,
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    *,
    qformer: str | os.PathLike | None = None,
    kind: str | None = None,
    dtype: torch.dtype | None = None,
    refer: bool = False,
    extra_bos: bool = False,
    image_size: int | None = None,
    vit_heads: int | None = None,
    qformer_bert: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Account:
    """Turn published files into a folder.

    Args:
        vit: ``eva_vit_g.pth``.
        llm: the language model's folder, or its hub id.
        checkpoint: what the authors trained (``pretrained_minigpt4*.pth``, ``checkpoint_stage3.pth``), or you with their code.
        output: the folder to write; it must not exist yet, or be empty.
        qformer: ``blip2_pretrained_flant5xxl.pth``, for systems with Vicuna.
        kind: one of `KINDS`; found out from the files when not given.
        dtype: of the vision encoder's and the language model's weights; as in their files when not given. What was trained
            stays as it is.
        refer: do not copy the language model's weights; write where they are instead.
        extra_bos: begin every prompt with the second beginning-of-sequence token that the published inference gives, and
            the published training does not.
        image_size: of the pictures, where it is not the family's.
        vit_heads: attention heads of a vision encoder that is not of the released size.
        qformer_bert: a BERT ``config.json`` for a Q-Former that is not of the released size; ``bert_config.json`` beside the
            Q-Former's file is taken by itself.
        progress: called with bytes written and bytes to write.

    Returns:
        What became of every tensor of every file, and of every weight of the model.

    Raises:
        UserError: files that do not go together, are damaged, or hold what is not known; nothing is written then.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; name a new folder")
    llm_folder = _llm_folder(llm)
    vision_file, trained = TorchFile(Path(vit)), TorchFile(Path(checkpoint))
    connector_file = TorchFile(Path(qformer)) if qformer is not None else None

    family, config = _configuration(vision_file, connector_file, trained, llm_folder, kind, image_size, vit_heads, qformer_bert)
    plan = Plan(family.name)
    if extra_bos and family.name != "minigptv2":
        raise UserError(f"the extra beginning-of-sequence token is published behaviour of minigptv2, not of {family.name}")
    depth = config.vision_config.num_hidden_layers
    plan.add(vision_file, lambda name: vision_place(name, depth), "the vision encoder's file")
    if connector_file is not None:
        plan.add(connector_file, connector_place, "BLIP-2's file", tuple(connector_file.extra))
    for shard in weights_of_folder(llm_folder):
        plan.add(shard, llm_place, "a language model's folder")
    plan.add(trained, lambda name: checkpoint_place(name, depth), f"a checkpoint of {family.name}", tuple(trained.extra))

    if family.lora:
        adapters = [name for name in plan.sources if ".lora_" in name]
        config.lora = sizes.lora_config(trained, adapters)
        plan.account.notes.append(
            f"adapters: {len(adapters)} tensors, rank {config.lora['r']}, alpha {config.lora['alpha']}, "
            f"on {', '.join(config.lora['target_modules'])}"
        )
    shapes = _shapes(config)
    _balance(plan, shapes, config, trained)

    processor = MiniGPT4Processor(
        MiniGPT4ImageProcessor(config.image_size),
        _tokenizer(llm_folder, config.text_config),
        template=family.template,
        num_image_tokens=config.num_image_tokens,
        image_token_id=config.image_token_id,
        extra_bos=extra_bos,
    )
    generation = GenerationConfig(
        max_new_tokens=family.max_new_tokens,
        repetition_penalty=family.repetition_penalty,
        do_sample=False,
        bos_token_id=processor.tokenizer.bos_token_id,  # some early conversions of LLaMA have others in their config.json
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    writer = Writer(plan, shapes, config, dtype, progress)

    def write(folder: Path) -> None:
        if refer:
            config.text_source = str(llm_folder.resolve()) if Path(llm).is_dir() else str(llm)
            config.vision_source = str(output.resolve() / "vision")
            writer.write_parts(folder)
        else:
            writer.write_whole(folder)
        config.architectures = [MiniGPT4ForConditionalGeneration.__name__]
        config.save_pretrained(folder)
        generation.save_pretrained(folder)
        processor.save_pretrained(folder)

    with saying(output):
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_folder(output, output.with_name(f".{output.name}-{os.getpid()}"), write)
    return plan.account


def _configuration(
    vision_file: TorchFile,
    connector_file: TorchFile | None,
    trained: TorchFile,
    llm: Path,
    kind: str | None,
    image_size: int | None,
    vit_heads: int | None,
    qformer_bert: str | os.PathLike | None,
) -> tuple[sizes.Kind, MiniGPT4Config]:
    """The kind and configuration of the system that these files are."""
    width = sizes.vision_config(vision_file, image_size or 224, vit_heads).hidden_size
    family = sizes.recognise(trained, width, kind, connector_file.file if connector_file else None)
    vision = sizes.vision_config(vision_file, image_size or family.image_size, vit_heads)
    text_config = _llm_config(llm)
    connector: dict[str, Any] = {"concat_factor": sizes.CONCAT}
    connector_width = sizes.CONCAT * vision.hidden_size
    if connector_file is not None:
        bert = sizes.bert_settings(Path(qformer_bert) if qformer_bert else None, connector_file.file)
        qformer, queries = sizes.qformer_config(connector_file, bert)
        connector, connector_width = {"qformer_config": qformer, "num_query_tokens": queries}, qformer.hidden_size
    sizes.check_projection(trained, connector_width, text_config.hidden_size, llm)
    try:
        config = MiniGPT4Config(
            vision_config=vision,
            text_config=text_config,
            connector=family.connector,
            vision_norm_eps=sizes.NORM_EPS,
            **connector,
        )
    except ValueError as error:
        raise UserError(f"{vision_file.file}: does not go with the other files: {error}") from error
    config.dtype = getattr(text_config, "dtype", None)
    return family, config


# the text_config -----------------------------------------------------------------------------------------------------------


def _llm_folder(llm: str | os.PathLike) -> Path:
    """The language model's folder; of a hub repository only what is needed is fetched."""
    folder = Path(llm)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UserError(f"{llm}: a file; --llm wants the language model's folder, or its hub id")
    if not is_hub_id(llm):
        raise UserError(f"{llm}: no such folder")
    import huggingface_hub

    try:
        there = huggingface_hub.list_repo_files(str(llm))
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in there) else "*.bin"
        return Path(huggingface_hub.snapshot_download(str(llm), allow_patterns=["*.json", "tokenizer.model", weights]))
    except Exception as error:  # network, permission, no such repository: all are the user's to mend
        raise UserError(f"{llm}: neither a folder nor a hub repository that can be fetched ({error})") from error


def _llm_config(folder: Path) -> PreTrainedConfig:
    check_present(folder / "config.json")
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / 'config.json'}: not a language model's configuration ({error})") from error


def _tokenizer(folder: Path, llm: PreTrainedConfig) -> Any:
    tokenizer = legacy_llama_tokenizer(folder)
    if len(tokenizer) > llm.vocab_size:
        raise UserError(f"{folder}: its tokenizer has {len(tokenizer)} pieces, more than its {llm.vocab_size} word embeddings")
    tokenizer.model_max_length = llm.max_position_embeddings
    return tokenizer


# the account --------------------------------------------------------------------------------------------------------


def _shapes(config: MiniGPT4Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights of a system, in order, without making it."""
    plain = MiniGPT4Config.from_dict(config.to_dict() | {"lora": None})
    with torch.device("meta"):
        model = MiniGPT4ForConditionalGeneration(plain)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.lora is None:
        return shapes
    targets, rank = tuple(config.lora["target_modules"]), config.lora["r"]
    adapted: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if not name.startswith(LLM) or module.rpartition(".")[2] not in targets:
            adapted[name] = shape
            continue
        adapted[f"{module}.base_layer.{leaf}"] = shape
        if leaf == "weight":
            adapted[f"{module}.lora_A.default.weight"] = (rank, shape[1])
            adapted[f"{module}.lora_B.default.weight"] = (shape[0], rank)
    return adapted


def _balance(plan: Plan, shapes: dict[str, tuple[int, ...]], config: MiniGPT4Config, trained: TorchFile) -> None:
    """Check that every tensor has a weight of its shape and every weight its tensor, and complete the account."""
    for name in [n for n in plan.sources if n not in shapes]:  # adapted modules keep their own weights one level down
        module, _, leaf = name.rpartition(".")
        if f"{module}.base_layer.{leaf}" in shapes:
            plan.sources[f"{module}.base_layer.{leaf}"] = plan.sources.pop(name)
    for name, parts in plan.sources.items():
        source = next(iter(parts.values()))
        if name not in shapes:
            what = "an adapter for a module" if ".lora_" in name else "a weight"
            raise UserError(f"{source.weights.file}: {source.name} is {what} that this system does not have")
        _check_shape(name, parts, shapes[name], config)
    account = plan.account
    for name, shape in shapes.items():
        if name in plan.sources:
            account.filled += 1
            account.parameters += torch.Size(shape).numel()
        elif name.startswith(f"{VISION}post_layernorm.") and config.connector == "concat":
            value = "weight 1" if name.endswith("weight") else "bias 0"
            account.initial[name] = f"{value}: no file of this family has it (eps {sizes.NORM_EPS:g})"
        elif name == f"{LLM}lm_head.weight" and config.text_config.tie_word_embeddings:
            account.initial[name] = "the same as the word embeddings"
        else:
            raise _missing(name, [n for n in shapes if n not in plan.sources], plan, trained)


def _check_shape(name: str, parts: dict[str, Source], shape: tuple[int, ...], config: MiniGPT4Config) -> None:
    for part, source in parts.items():
        found = source.weights.shape(source.name)
        wanted = (shape[0] // 3,) if part else shape
        if name == f"{VISION}embeddings.position_embedding":
            side = int((found[1] - 1) ** 0.5)
            if found[2] != shape[2] or side * side + 1 != found[1]:
                raise UserError(
                    f"{source.weights.file}: {source.name} is of shape {found}, not a square of patches and a class"
                )
        elif found != wanted and ".lora_" in name:
            raise UserError(
                f"{source.weights.file}: {source.name} is of shape {found}, but this language model needs {wanted}: "
                f"the adapters are for one of another width{sizes.called(max(found))}, this one is of "
                f"{config.text_config.hidden_size}{sizes.called(config.text_config.hidden_size)}"
            )
        elif found != wanted:
            raise UserError(
                f"{source.weights.file}: {source.name} is of shape {found}, but this system needs {wanted}: "
                "a file of a model of another size"
            )
    if parts.keys() - {""} and parts.keys() != {"q", "v"}:
        source = next(iter(parts.values()))
        raise UserError(f"{source.weights.file}: {source.name} has no {'v' if 'q' in parts else 'q'}_bias beside it")


def _missing(name: str, missing: list[str], plan: Plan, trained: TorchFile) -> UserError:
    """The error for weights that no file fills; it names the file that should have had them."""
    files = [entry.file for entry in plan.account.files]
    if ".lora_" in name or name.startswith("projection."):
        file = trained.file
    elif name.startswith(LLM):
        file = files[-2].parent
    else:
        file = files[0] if name.startswith(VISION) and "post_layernorm" not in name else files[1]
    return UserError(
        f"{file}: {len(missing)} weight(s) of this system are in none of the files, the first is {name} "
        "(a file of another system, with renamed keys, or not whole)"
    )
