"""From a recipe to a system that is ready to learn: parts loaded, adapters in place, everything else frozen."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..checkpoints.folders import TRAINED, find_folder, read_task_settings, text_folder, vision_folder
from ..checkpoints.loading import fast_dtype, learnt_before, load_parts, load_system, stored_name
from ..checkpoints.parts import LLM, VISION, config_of_part, tokenizer_of_part, vision_as
from ..checkpoints.pocket import FOLDERS
from ..checkpoints.trained import read_trained
from ..errors import UserError
from ..media.images import check_image
from ..model.adapters import learn_merged, set_lora
from ..model.configuration import MiniGPT4Config
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import CLIP_MEAN, CLIP_STD, MiniGPT4ImageProcessor, MiniGPT4Processor
from .channel_dropout import drop_channels
from .recipe import Model, Recipe, Trained

log = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

PLAIN = "none"
"""The template name that stands for no chat format: the answer follows the picture."""


class Prepared(NamedTuple):
    """What a run begins with."""

    model: MiniGPT4ForConditionalGeneration
    processor: MiniGPT4Processor
    learnt_before: frozenset[str]
    """Weights that an earlier stage has changed and that this one stores as well (`checkpoints.loading.learnt_before`)."""
    task_settings: dict[str, dict[str, Any]]
    """Decoding settings by task, as the base has them (`checkpoints.folders.read_task_settings`)."""


def prepare(recipe: Recipe, device: torch.device | str = "cpu") -> Prepared:
    """The system that a recipe trains, frozen and set up as it says; what is trained is in float32.

    Raises:
        UserError: the base or a part is not there, or values of the recipe do not fit it.
    """
    recipe = settled(recipe, device)
    for image in recipe.validation.images:
        try:
            check_image(image)
        except UserError as error:
            raise UserError(f"validation.images: {error}") from None
    dtype = DTYPES[recipe.precision]
    try:
        model, processor, before, task_settings = (
            _from_parts(recipe.model, dtype) if recipe.model.vision else _from_base(recipe, dtype)
        )
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the recipe's model cannot be built: {error}") from error
    if recipe.data.pack and getattr(model.language_model, "_is_stateful", False):
        kind = model.config.text_config.model_type
        raise UserError(f"data.pack: rows of several examples are not for a recurrent language model ({kind}); set it to false")
    lora = recipe.trained.lora.model_dump() if recipe.trained.lora else None
    if set_lora(model.language_model, model.config.lora, lora):
        model.config.base_source = _absolute(recipe.model.base)  # its adapters are part of our language model now
        model.config.base_adapters = (
            "none" if "lora" in recipe.model.fresh else "merged"
        )  # nothing was merged of those begun anew
        before = frozenset()  # and its vision encoder is found there
    model.config.lora = lora
    model.language_model.set_attn_implementation(_attention(recipe.attention, device))
    if recipe.gradient_checkpointing:
        model.language_model.activation_checkpointing_enable({"use_reentrant": False})
    freeze(model, recipe.trained)
    if recipe.model.vision is None:
        _take_as_stored(model, find_folder(recipe.model.base), adapters=False, fresh=recipe.model.fresh)
    if recipe.trained.vision_dropout:
        drop_channels(model, recipe.trained.vision_dropout)
    if recipe.merged_adapters:
        learn_merged(model.language_model)
    model.to(device).eval()  # until training begins: features may be made before
    if torch.device(device).type == "cpu":
        model.vision_tower.to(memory_format=torch.channels_last)  # convolutions on a CPU run twice as fast
    return Prepared(model, processor, before, task_settings)


def settled(recipe: Recipe, device: torch.device | str) -> Recipe:
    """The recipe with a precision that is not left to the machine."""
    if recipe.precision != "auto":
        return recipe
    fast = fast_dtype(device)
    return recipe.model_copy(update={"precision": next(name for name, dtype in DTYPES.items() if dtype is fast)})


def freeze(model: MiniGPT4ForConditionalGeneration, trained: Trained) -> None:
    """Freeze everything but what is to be trained, keep that in float32, and say so."""
    learns = {
        "projection": trained.projection,
        "connector": trained.connector,
        "vision_tower": trained.vision_tower,
        "language_model": False,
    }
    for part, yes in learns.items():
        getattr(model, part).requires_grad_(yes)
    if trained.vision_layers is not None:
        _freeze_beginning(model.vision_tower, trained.vision_layers)
    if (branch := getattr(model.vision_tower, "class_branch", None)) is not None:
        branch.requires_grad_(False)  # it tells the names that it was trained to tell, from blocks that must not change
        if trained.vision_tower and not 0 < (trained.vision_layers or 0) <= len(branch.blocks):
            raise UserError(
                f"trained.vision_layers: at most {len(branch.blocks)} of this vision encoder's layers, or its classifier would "
                "be given what it does not know"
            )
    for name, parameter in model.named_parameters():
        if trained.lora is not None and ".lora_" in name:
            parameter.requires_grad_(True)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for module in model.modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            for buffer in module.buffers(recurse=False):  # a norm's statistics go with its weights
                buffer.data = buffer.data.float() if buffer.is_floating_point() else buffer.data
    total = sum(p.requires_grad for p in model.parameters())
    if not total:
        raise UserError(
            "the recipe trains nothing: set trained.projection, trained.lora, trained.connector or trained.vision_tower"
        )
    for part in learns:
        parameters = list(getattr(model, part).parameters())
        count = sum(p.numel() for p in parameters)
        learnt = sum(p.numel() for p in parameters if p.requires_grad)
        log.info("%-15s %13s parameters, %12s of them trained", part, f"{count:,}", f"{learnt:,}")


def learnt_positions(language_model: PreTrainedModel) -> int | None:
    """How many positions a language model has that learnt a vector for each (GPT-2, OPT); None of one that can go beyond."""
    most = getattr(language_model.config, "max_position_embeddings", None)
    words = language_model.get_input_embeddings()
    tables = [module for module in language_model.modules() if isinstance(module, nn.Embedding) and module is not words]
    learnt = any(isinstance(most, int) and 0 <= table.num_embeddings - most <= 2 for table in tables)  # OPT begins at the third
    return most if learnt else None


def _freeze_beginning(vision: nn.Module, layers: int) -> None:
    """Freeze what comes before a vision encoder's last `layers` layers: those of its longest list of modules, in whose order,
    and in that of its parameters, pictures go through it."""
    lists = [(name, module) for name, module in vision.named_modules() if isinstance(module, nn.ModuleList)]
    name, found = max(lists, key=lambda each: len(each[1]), default=("", ()))
    if layers > len(found):
        raise UserError(f"trained.vision_layers: {layers} of this vision encoder's layers, but it has {len(found)}")
    first = f"{name}.{len(found) - layers}."
    for name, parameter in vision.named_parameters():
        if name.startswith(first):
            return
        parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module, weight_decay: float, projection_factor: float = 1.0, vision_factor: float = 1.0
) -> list[dict[str, Any]]:
    """AdamW's groups: decay for matrices, none for biases and norms; projection and vision encoder may have their own learning
    rates.

    The published code tells them apart by name as well: nothing whose name contains "bias", "ln" or "bn" decays. Names of
    ours that contain those letters by chance are no matrices, so the number of dimensions alone gives the same groups.
    """
    factors = {"projection": projection_factor, "vision_tower": vision_factor}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = factors.get(name.split(".")[0], 1.0)
            groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": found, "weight_decay": weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), found in groups.items()
    ]


def _from_base(recipe: Recipe, dtype: torch.dtype) -> Prepared:
    wanted = recipe.model
    if wanted.image_size is not None:
        raise UserError("image_size is for new systems (vision and text): a base's vision encoder keeps its own")
    model, processor = load_system(wanted.base, dtype=dtype, merge=False)
    folder = find_folder(wanted.base)
    if not (folder / TRAINED).exists():
        model.config.base_source = _absolute(wanted.base)
        model.config.base_adapters = "continued" if model.config.lora else "none"  # `prepare` may merge them yet
    if wanted.config:
        model = _rebuilt(model, wanted.config).to(dtype)
        processor.num_image_tokens = model.config.num_image_tokens
    _take_as_stored(model, folder, adapters=True)  # before they are merged, if they will be
    for part in wanted.fresh:
        _begin_anew(model, part)
    if wanted.template not in (None, PLAIN):
        processor.template = wanted.template
    return Prepared(model, processor, learnt_before(folder), read_task_settings(folder))


@torch.no_grad()
def _take_as_stored(
    model: MiniGPT4ForConditionalGeneration, folder: Path, *, adapters: bool, fresh: Sequence[str] = ()
) -> None:
    """Give adapters, or what else is trained, the values of a trained folder in float32: the model was loaded in the precision
    of the frozen weights, and each stage would begin with what the last one learnt, rounded.

    Args:
        fresh: parts that begin anew.
    """
    if not (folder / TRAINED).exists():
        return
    stored = read_trained(folder)
    for name, parameter in model.named_parameters():
        value = stored.get(stored_name(name))
        if value is None or value.shape != parameter.shape or name.split(".")[0] in fresh:
            continue
        if adapters and ".lora_" in name:
            parameter.data = value.float().to(parameter.device)
        elif not adapters and ".lora_" not in name and parameter.requires_grad:
            parameter.copy_(value)


def _rebuilt(model: MiniGPT4ForConditionalGeneration, changes: dict[str, Any]) -> MiniGPT4ForConditionalGeneration:
    """The same vision encoder and language model with another connector or projection between them, untrained where its shape
    is new.

    The vision encoder may be set to give more of what it sees (``vision_config``), as long as that takes no other weights, and
    places may be told (``position_octaves``): the projection then keeps what it knows, and begins with zeros for what is new.
    """
    between = {"connector", "concat_factor", "concat_order", "qformer_config", "num_query_tokens", "projection_depth"}
    widening = {"vision_config", "position_octaves", "position_scale"}
    between |= widening
    if others := set(changes) - between:
        raise UserError(f"model.config.{min(others)} cannot be changed in a base; {', '.join(sorted(between))} can")
    given_config = model.config.to_dict()
    changes = {key: value for key, value in changes.items() if value != given_config.get(key)}
    vision = given_config["vision_config"] | changes.get("vision_config", {})
    config = MiniGPT4Config(**given_config | changes | {"vision_config": vision})
    tower = model.vision_tower
    if "vision_config" in changes:
        try:
            tower = vision_as(tower, config.vision_config)
        except UserError as error:
            raise UserError(f"model.config.{error}") from None
    built = MiniGPT4ForConditionalGeneration(config, tower, model.language_model)
    own, given = built.state_dict(), model.state_dict()
    kept = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    for name, weight in given.items():
        if name.startswith("projection.") and name in own and name not in kept and not set(changes) - widening:
            kept[name] = _widened(weight, own[name].shape, config)
    built.load_state_dict(kept, strict=False)
    built.generation_config = model.generation_config
    return built


def _widened(weight: torch.Tensor, shape: torch.Size, config: MiniGPT4Config) -> torch.Tensor:
    """The first matrix of a projection, (out, tokens * channels), with zeros for further channels of each token."""
    tokens = config.concat_factor if config.connector == "concat" else 1
    patches, classes = weight.split([weight.shape[1] - config.class_channels, config.class_channels], 1)
    wide = weight.new_zeros(shape[0], tokens, (shape[1] - config.class_channels) // tokens)
    narrow = patches.reshape(weight.shape[0], tokens, -1)
    if narrow.shape[2] > wide.shape[2] or narrow.shape[0] != wide.shape[0]:
        raise UserError("model.config: a token may have more channels than in the base, not fewer")
    wide[:, :, : narrow.shape[2]] = narrow
    return torch.cat([wide.flatten(1), classes], 1)


def _begin_anew(model: MiniGPT4ForConditionalGeneration, part: str) -> None:
    if part == "lora":
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                nn.init.zeros_(parameter)  # the adapter's product is zero again; A is random as it was
        return
    for module in getattr(model, part).modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for name, parameter in model.named_parameters():
        if part == "connector" and name == "connector.query_tokens":
            nn.init.normal_(parameter, std=0.02)


def new_processor(wanted: Model) -> MiniGPT4Processor:
    """The processor of a new system, without loading its weights."""
    config, vision_path, tokenizer = _new_config(wanted)
    template = "tokenizer" if wanted.template in (None, PLAIN) else wanted.template
    if wanted.template == PLAIN and not tokenizer.chat_template:
        # text alone, which any language model can read: how the paper asks a language model that knows no chat
        template = "vicuna-v0"
    processor = MiniGPT4Processor(
        MiniGPT4ImageProcessor(config.image_size, *_statistics(vision_path)),
        tokenizer,
        template=template,
        num_image_tokens=config.num_image_tokens,
        image_token_id=config.image_token_id,
    )
    if wanted.template != PLAIN:
        _ = processor.chat  # a tokenizer without a chat template is said now, not at the first sample
    return processor


def _from_parts(wanted: Model, dtype: torch.dtype) -> Prepared:
    """A new system of a vision encoder and a language model that have not met."""
    config, _, _ = _new_config(wanted)
    model = MiniGPT4ForConditionalGeneration(config, *load_parts(config, dtype)).to(dtype)
    return Prepared(model, new_processor(wanted), frozenset(), {})


def _new_config(wanted: Model) -> tuple[MiniGPT4Config, str, PreTrainedTokenizerBase]:
    """Configuration, folder of the vision encoder, and tokenizer of a new system."""
    sources = MiniGPT4Config(vision_source=_absolute(wanted.vision), text_source=_absolute(wanted.text))
    vision_path, text_path = vision_folder(sources), text_folder(sources)
    vision = config_of_part(vision_path, VISION)
    if wanted.image_size is not None:
        vision.image_size = wanted.image_size
    text = config_of_part(text_path, LLM)
    tokenizer = tokenizer_of_part(text_path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = MiniGPT4Config(
        **{
            "vision_config": vision.to_dict(),
            "text_config": text.to_dict(),
            "vision_source": sources.vision_source,
            "text_source": sources.text_source,
        }
        | wanted.config
    )
    return config, vision_path, tokenizer


def _statistics(source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pixels that a vision encoder was trained with."""
    if (Path(source) / "config.json").exists() and config_of_part(source, VISION).model_type == "efficientnet_lite":
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    try:
        file = cached_file(source, "preprocessor_config.json")
        settings = json.loads(Path(file).read_text())
        return tuple(settings["image_mean"]), tuple(settings["image_std"])
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s says nothing about its pixel statistics (preprocessor_config.json): CLIP's are taken", source)
        return CLIP_MEAN, CLIP_STD


def _attention(wanted: str, device: torch.device | str) -> str:
    """On a CPU, plain attention trains faster than the fused kernel (benchmarks/RESULTS.md)."""
    if wanted != "auto":
        return wanted
    return "eager" if torch.device(device).type == "cpu" else "sdpa"


def _absolute(source: str | None) -> str | None:
    """A folder by its full path, so that what is written elsewhere still finds it; other names as they are."""
    return str(Path(source).resolve()) if source and source not in FOLDERS and Path(source).is_dir() else source
