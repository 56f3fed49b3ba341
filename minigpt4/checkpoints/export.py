"""A system as one plain folder that `transformers` and servers read: adapters merged, nothing elsewhere.

    config.json, model.safetensors        the whole network
    processor_config.json                 image size and statistics
    tokenizer.json, ...                   with ``<ImageHere>`` as a special token, whose id is the image token's
    chat_template.jinja                   the chat format that the system was trained with
    generation_config.json                greedy decoding, said in every way in which it is asked for
    task_settings.json                    decoding by task, which `minigpt4` alone reads

After ``import minigpt4.model``, `AutoProcessor`, `AutoModelForImageTextToText` and ``pipeline("image-text-to-text")`` answer
from it.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import GenerationConfig

from ..errors import UserError
from ..io.atomic import saying, write_folder, write_text
from ..model.configuration import MiniGPT4Config
from ..model.processing import MiniGPT4Processor
from ..prompt.jinja import as_jinja
from ..prompt.templates import PLACEHOLDER, TokenizerTemplate
from .folders import find_folder, read_config, read_task_settings, write_task_settings
from .loading import is_small, load_system

log = logging.getLogger(__name__)


def export(source: str | os.PathLike, output: str | os.PathLike, dtype: torch.dtype | None = None) -> Path:
    """Write a system as one whole folder.

    Args:
        source: a name of `pocket.FOLDERS`, a folder of either kind, or a hub id.
        output: the folder to write; it appears when all of it is there.
        dtype: of the weights; float32 for small systems and bfloat16 for others when not given.

    Raises:
        UserError: no such system, a folder that is there already or cannot be written, or a tokenizer that leaves the image
            token no id.
    """
    folder = Path(output)
    with saying(folder):  # a name that is too long, say
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken:
        raise UserError(f"{folder}: is there already; name a new folder to write")
    found = find_folder(source)
    task_settings = read_task_settings(found)
    if dtype is None:
        dtype = torch.float32 if is_small(read_config(found)) else torch.bfloat16
    model, processor = load_system(found, dtype=dtype)
    config, settings = model.config, _greedy(model.generation_config)
    config.image_token_id = processor.image_token_id = _image_token(processor, config)
    config.lora = config.vision_source = config.text_source = config.base_source = config.base_adapters = None
    for part in (config, config.vision_config, config.text_config):
        part._name_or_path = ""  # where this machine had it is nobody's business
    bos = processor.tokenizer.bos_token or ""
    processor.chat_template = as_jinja(processor.chat, processor.special_texts, bos, processor.extra_bos)
    if isinstance(processor.chat, TokenizerTemplate):
        processor.extra_bos = False  # what stands before the tokenizer's own format is part of the template now
    else:
        processor.tokenizer.chat_template = processor.chat_template
    if stop := list(processor.chat.stop):
        log.warning("answers of this chat format end at a text: generate needs stop_strings=%s and the tokenizer", stop)

    def write(work: Path) -> None:
        model.generation_config = GenerationConfig()  # the library does not write a temperature of 0
        model.save_pretrained(work)
        processor.save_pretrained(work)
        write_text(work / "generation_config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
        write_task_settings(work, task_settings)

    with saying(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, folder.with_name(f".{folder.name}-{os.getpid()}"), write)
    return folder


def _greedy(settings: GenerationConfig) -> dict[str, Any]:
    """Decoding settings without chance. Some programs look at ``do_sample``, others at the temperature alone."""
    left_out = ("top_p", "top_k", "_from_model_config", "transformers_version")
    given = {key: value for key, value in settings.to_diff_dict().items() if value is not None and key not in left_out}
    return given | {"do_sample": False, "temperature": 0.0}


def _image_token(processor: MiniGPT4Processor, config: MiniGPT4Config) -> int:
    """The id of the placeholder as a token of the tokenizer's own: the next one that is free."""
    tokenizer = processor.tokenizer
    free = len(tokenizer)
    if PLACEHOLDER not in tokenizer.get_vocab() and free > config.text_config.vocab_size:
        raise UserError(f"the tokenizer has {free} tokens, but the language model {config.text_config.vocab_size} words")
    token = AddedToken(PLACEHOLDER, special=True, normalized=False)
    tokenizer.add_tokens([token], special_tokens=True)
    number = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    if tokenizer(PLACEHOLDER, add_special_tokens=False)["input_ids"] != [number]:
        raise UserError(f"the tokenizer does not take {PLACEHOLDER} for one token")
    return number
