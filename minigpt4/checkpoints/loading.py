"""Folders with a system in them: weights read and written (what else is in a folder is read by `folder`).

Two kinds are read. A *whole* folder is what ``save_pretrained`` writes: ``config.json`` and ``model.safetensors`` with every
weight. A *trained* folder holds what training changed, and says in its configuration where the frozen parts come from:

    config.json            MiniGPT4Config with `vision_source` and `text_source`
    trained.safetensors    projection.*, and if trained: connector.*, vision_tower.*
    adapter_*              adapters in the language model, if there are any, as `peft` has them (see `trained`)
    processor_config.json  picture size and statistics, chat template
    generation_config.json default decoding
    task_settings.json     decoding by task, if the system has its own
"""

import copy
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights

from ..errors import UserError
from ..io.hub import is_hub_id
from ..model.adapters import lora_form, merge_lora
from ..model.configuration import MiniGPT4Config
from ..model.legacy_llama_tokenizer import LegacyLlamaTokenizer
from ..model.modeling import MiniGPT4ForConditionalGeneration
from ..model.processing import MiniGPT4Processor
from .folders import (
    TRAINED,
    find_folder,
    in_one_line,
    load_processor,
    read_config,
    read_generation_config,
    text_folder,
    tokenizer_source,
    vision_folder,
    write_task_settings,
)
from .official.files import weights_of_folder
from .parts import LLM, config_of_part, llm_of_part, vision_as, vision_of_part
from .quantize import quantization_config
from .trained import LANGUAGE_MODEL as _LLM
from .trained import LORA as _LORA
from .trained import TOKENIZER_FILES, read_tensors, read_trained, remove_others, write_trained

_OURS = ("projection.", "connector.")

Adapters = Literal["merged", "apart", "left out"]
"""What becomes of a system's adapters when it is loaded: added to the language model's weights, kept beside them, or
neither."""


_SMALL_LLM = 5e8
"""Parameters up to which a language model on a CPU answers in float32."""


def best_dtype(config: MiniGPT4Config, device: str | torch.device = "cpu") -> torch.dtype:
    """bfloat16 where the machine multiplies it at full speed, float32 elsewhere.

    On a CPU, a small language model has float32 in any case: that takes half as long again, and then an answer does not depend
    on how many others are worked out beside it. In bfloat16 it does now and then, between two words that are almost as likely:
    seven of 96 greedy captions of the pocket model were others in batches of 16 than one by one.
    """
    on_cpu = torch.device(device).type == "cpu"
    return torch.float32 if on_cpu and is_small(config) else fast_dtype(device)


def is_small(config: MiniGPT4Config) -> bool:
    """Whether the language model is one that answers in float32 on a CPU."""
    return _llm_size(config.text_config) <= _SMALL_LLM


def fast_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """The half precision that a device multiplies faster than float32; float32 where there is none. A CPU without bfloat16
    products works them out many times more slowly than float32's."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if kind == "cpu" and torch.cpu._is_avx512_bf16_supported() else torch.float32


def _llm_size(text: PreTrainedConfig) -> float:
    """Parameters of a language model, about: four square matrices and a gated MLP a layer, and the vocabulary."""
    width = text.hidden_size
    inner = getattr(text, "intermediate_size", None) or 4 * width
    return text.num_hidden_layers * (4 * width**2 + 3 * width * inner) + text.vocab_size * width


def load_system(
    source: str | os.PathLike = "pocket",
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    merge: bool = True,
    quantize: str | None = None,
    device_map: Any = None,
    embeddings: Path | None = None,
) -> tuple[MiniGPT4ForConditionalGeneration, MiniGPT4Processor]:
    """A model and its processor, ready for use.

    Args:
        source: a name of `pocket.FOLDERS`, a folder of either kind, or a hub id.
        dtype: of all weights; the best for `device` when not given.
        merge: add adapters of a trained folder to the language model's weights (no `peft` needed, nothing to compute at run
            time) instead of keeping them apart.
        quantize: ``"8bit"`` or ``"4bit"`` to store the language model's layers so (see `quantize`); adapters then stay apart.
        device_map: as in `transformers`: ``"auto"``, or a device for each module, instead of `device` alone.
        embeddings: an array (V, H) on disk: of a trained folder with parts of its own, the language model is left without
            weights but for these word embeddings, because something else computes it; `fill_language_model` puts them in.

    Raises:
        UserError: no such folder, or one that is not a system of this family, or whose weights do not fit.
    """
    folder = find_folder(source)
    config = read_config(folder)
    dtype = best_dtype(config, device) if dtype is None else dtype
    adapters: Adapters = "merged" if merge and quantize is None else "apart"
    placed = quantize is not None or device_map is not None
    options: dict[str, Any] = {"device_map": device_map or {"": str(device)}} if placed else {}
    if quantize is not None:
        options["quantization_config"] = quantization_config(quantize, dtype)
    own = (folder / "tokenizer_config.json").exists() or not (folder / TRAINED).exists()
    tokenizer = folder if own else tokenizer_source(config)
    if not own:
        config_of_part(str(tokenizer), LLM)  # a folder that is gone is said to be gone
    processor = load_processor(folder, tokenizer)
    if embeddings is not None and (folder / TRAINED).exists() and not config.base_source:
        model = _load_without_language_model(folder, config, dtype, embeddings)
    else:
        model = _load(folder, config, dtype, adapters, options)
    return (model if placed else model.to(device)).eval(), processor


def weight_folders(source: str | os.PathLike) -> list[Path]:
    """Folders whose files decide what a system says: its own, that of the system it goes on from, and those of the frozen
    parts (which may be hub ids)."""
    folder = find_folder(source)
    config = read_config(folder)
    if not (folder / TRAINED).exists():
        return [folder]
    if config.base_source:
        return [folder, *weight_folders(config.base_source)]
    return [folder, Path(text_folder(config)), Path(vision_folder(config))]


def load_parts(
    config: MiniGPT4Config, dtype: torch.dtype, options: dict[str, Any] | None = None
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The frozen vision encoder and language model that `config` names; `options` are for the language model's
    ``from_pretrained``."""
    vision_tower = vision_of_part(vision_folder(config), config.vision_config, dtype)
    folder = text_folder(config)
    language_model = None if options else _llm_in_one_file(Path(folder), dtype)
    if language_model is None:
        language_model = llm_of_part(folder, dtype, options or {})
    return vision_tower, language_model


def _llm_in_one_file(folder: Path, dtype: torch.dtype) -> PreTrainedModel | None:
    """A language model whose weights lie in one file under the names they have in the model; nothing for any other.

    It is what ``from_pretrained`` gives, a second sooner: made on the meta device there, its first operations would import
    torch's compiler.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    config = config_of_part(str(folder), LLM)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "quantization_config", None) is not None:
        return None
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in read_tensors(file).items()}
    own = model.state_dict()
    tied = model.all_tied_weights_keys  # name -> the name of the weight that it is
    if set(weights) != set(own) - {k for k in tied if k not in weights} or any(
        own[k].shape != v.shape for k, v in weights.items()
    ):
        return None
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    for module in model.modules():
        module._is_hf_initialized = True  # so that what it becomes part of does not initialise it
    if generation := read_generation_config(folder):
        model.generation_config = generation
    return model.eval()


def _load(
    folder: Path, config: MiniGPT4Config, dtype: torch.dtype, adapters: Adapters, options: dict[str, Any]
) -> MiniGPT4ForConditionalGeneration:
    generation = read_generation_config(folder)
    load = _load_trained if (folder / TRAINED).exists() else _load_whole
    model = load(folder, config, dtype, adapters, options)
    if generation is not None:
        model.generation_config = generation
    return model


def _load_whole(
    folder: Path, config: MiniGPT4Config, dtype: torch.dtype, adapters: Adapters, options: dict[str, Any]
) -> MiniGPT4ForConditionalGeneration:
    lora = config.lora
    if lora is not None and adapters != "apart":  # the language model is made without, from weights stored one level deeper
        config.lora = None
        options = options | {"key_mapping": {r"\.base_layer\.": "."}}
    try:
        model, report = MiniGPT4ForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded ({in_one_line(error)})") from error
    wrong = {
        "lacks": report["missing_keys"],
        "has unknown": report["unexpected_keys"],
        "has ill-shaped": {name for name, *_ in report["mismatched_keys"]},
    }
    for how, names in wrong.items():
        if names:
            raise UserError(f"{folder}: {how} {len(names)} weight(s), the first is {min(names)}")
    if lora is not None and adapters == "merged":
        merge_lora(model.language_model, _adapters_of_whole(folder), lora)
    return model


def _adapters_of_whole(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(_LLM): file.tensor(name)
        for file in weights_of_folder(folder)
        for name in file.names()
        if _LORA in name
    }


def _load_trained(
    folder: Path, config: MiniGPT4Config, dtype: torch.dtype, adapters: Adapters, options: dict[str, Any]
) -> MiniGPT4ForConditionalGeneration:
    parts = _base_parts if config.base_source else load_parts
    vision_tower, language_model = parts(config, dtype, options)
    lora = config.lora
    weights = read_trained(folder)
    if lora is not None and adapters != "apart":
        theirs = {k.removeprefix(_LLM): weights.pop(k) for k in list(weights) if k.startswith(_LLM) and _LORA in k}
        if adapters == "merged":
            merge_lora(language_model, theirs, lora)
        config.lora = None
    model = MiniGPT4ForConditionalGeneration(config, vision_tower, language_model)
    if "quantization_config" not in options:
        model.to(dtype)
    else:  # a language model in few bits has its type; what is new beside it has not
        for name, parameter in model.named_parameters():
            if not name.startswith(_LLM) or _LORA in name:
                parameter.data = parameter.data.to(dtype)
    load_trained(model, weights, folder)
    if options:  # the language model is where it should be; the small parts go along
        for part in (model.vision_tower, model.connector, model.projection):
            part.to(model.device)
    return model


def _load_without_language_model(
    folder: Path, config: MiniGPT4Config, dtype: torch.dtype, embeddings: Path
) -> MiniGPT4ForConditionalGeneration:
    generation = read_generation_config(folder)
    vision_tower = vision_of_part(vision_folder(config), config.vision_config, dtype)
    with no_init_weights():  # memory that nothing is written to is none
        language_model = AutoModelForCausalLM.from_config(config_of_part(text_folder(config), LLM), dtype=dtype)
    table = torch.from_numpy(np.load(embeddings, mmap_mode="c"))
    language_model.get_input_embeddings().weight = torch.nn.Parameter(table, requires_grad=False)
    for module in language_model.modules():
        module._is_hf_initialized = True  # so that what it becomes part of does not initialise it
    config.lora = None
    model = MiniGPT4ForConditionalGeneration(config, vision_tower, language_model)
    weights = {name: weight for name, weight in read_trained(folder).items() if not name.startswith(_LLM)}
    load_trained(model, weights, folder / TRAINED)
    model.to(dtype)
    if generation is not None:
        model.generation_config = generation
    return model


@torch.inference_mode(False)  # weights read while a question is answered are as ordinary as any others
def fill_language_model(model: MiniGPT4ForConditionalGeneration, source: str | os.PathLike) -> None:
    """Give the language model its weights after `load_system` with `embeddings`."""
    whole, _ = load_system(source, model.device, next(model.projection.parameters()).dtype)
    model.language_model.load_state_dict(whole.language_model.state_dict(), assign=True)
    model.language_model.tie_weights()


def _base_parts(config: MiniGPT4Config, dtype: torch.dtype, options: dict[str, Any]) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Vision encoder and language model of the system that `config` says it changes. Its adapters are part of the language
    model if they were when the weights of `config` were trained."""
    assert config.base_source is not None
    folder = find_folder(config.base_source)
    base_config = read_config(folder)
    merged = adapters_merged(config, base_config)
    if config.base_adapters is None:  # what is made of this system will not be of its form
        config.base_adapters = "merged" if merged else "continued" if base_config.lora else "none"
    if "quantization_config" in options and merged:
        raise UserError(
            f"{folder}: adapters of an earlier stage cannot be added to a language model in few bits; load it without"
        )
    base = _load(folder, base_config, dtype, "merged" if merged else "left out", options)
    return vision_as(base.vision_tower, config.vision_config), base.language_model


def adapters_merged(config: MiniGPT4Config, base: MiniGPT4Config) -> bool:
    """Whether the adapters of `base`, which `config` says it changes, are part of the language model that is changed."""
    if base.lora is None:
        return False
    if config.base_adapters is not None:
        return config.base_adapters == "merged"
    return config.lora is None or lora_form(config.lora) != lora_form(base.lora)  # older files do not say


def load_trained(model: MiniGPT4ForConditionalGeneration, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Put the trained weights of a folder into `model`; each must find its place, and the projection and all adapters must be
    filled.

    Raises:
        UserError: a name or shape that does not fit, or a part that the folder should have and has not.
    """
    own = model.state_dict()
    names = {stored_name(k): k for k in own}
    for name, tensor in weights.items():
        if name not in names:
            raise UserError(f"{folder}: {name} fits no weight of this system")
        if own[names[name]].shape != tensor.shape:
            raise UserError(
                f"{folder}: {name} is of shape {tuple(tensor.shape)}, but this system needs {tuple(own[names[name]].shape)}"
            )
    needed = {n for n in names if n.startswith(_OURS) or _LORA in n}
    if missing := sorted(needed - set(weights)):
        raise UserError(f"{folder}: lacks {len(missing)} weight(s) that this system trains, the first is {missing[0]}")
    model.load_state_dict({names[name]: tensor for name, tensor in weights.items()}, strict=False)


def learnt_before(folder: Path) -> frozenset[str]:
    """Weights of the vision encoder and the language model that a trained folder stores, because training has changed them; a
    folder that is made of this one stores them as well, frozen by then or not. None of a whole folder."""
    if not (folder / TRAINED).exists():
        return frozenset()
    with safe_open(folder / TRAINED, "pt") as file:
        names = file.keys()
    return frozenset(name for name in names if not name.startswith(_OURS) and _LORA not in name)


def trained_weights(model: MiniGPT4ForConditionalGeneration, before: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """What a trained folder stores: projection, connector and adapters, and whatever else is trained or once was (`before`)."""
    chosen = {n: p for n, p in model.named_parameters() if p.requires_grad or n.startswith(_OURS) or _LORA in n or n in before}
    return {stored_name(n): p.detach().cpu().contiguous() for n, p in chosen.items()}


def save_trained(
    model: MiniGPT4ForConditionalGeneration,
    processor: MiniGPT4Processor,
    folder: str | os.PathLike,
    dtype: torch.dtype | None = None,
    before: Collection[str] = (),
    task_settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a trained folder. What an earlier one in its place had beside, like adapters, is removed.

    Args:
        dtype: of floating tensors in the file; that of the model when not given.
        before: what earlier training has changed (`learnt_before`).
        task_settings: decoding settings by task (`folders.read_task_settings`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = trained_weights(model, before)
    if dtype is not None:
        weights = {k: v.to(dtype) for k, v in weights.items()}
    write_trained(folder, weights, model.config.lora, adapter_base(model.config))
    config = copy.deepcopy(model.config)
    for part in (config, config.vision_config, config.text_config):
        part._name_or_path = ""  # where this machine had it is nobody's business
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    write_task_settings(folder, task_settings or {})
    processor.to_json_file(folder / "processor_config.json")
    if isinstance(processor.tokenizer, LegacyLlamaTokenizer):  # the language model's own folder would be read differently
        tokenizer = {Path(name).name for name in processor.tokenizer.save_pretrained(folder)}
    else:
        tokenizer = set()
    remove_others(folder, TOKENIZER_FILES, tokenizer)


def adapter_base(config: MiniGPT4Config) -> str | None:
    """The hub id of the language model whose weights the adapters change, where there is one."""
    plain = config.base_source is None and config.text_source is not None and is_hub_id(config.text_source)
    return config.text_source if plain else None


def stored_name(name: str) -> str:
    """peft's names of adapters without the adapter's own name, which is always "default"."""
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")
