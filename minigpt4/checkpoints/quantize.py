"""A language model stored in 8 or 4 bits, through `bitsandbytes`: less memory, a little less exact. Vision encoder and
projection stay as they are.

Sources: LLM.int8() (arXiv 2208.07339), which the published demos used, and NF4 (QLoRA, arXiv 2305.14314).
"""

import importlib.util
import logging
from typing import Any

import torch

from ..errors import UserError

BITS = ("8bit", "4bit")

_AS_THEY_ARE = ["vision_tower", "connector", "projection", "lm_head", r".*\.lora_[AB]"]  # names, or patterns of them


def quantization_config(bits: str, dtype: torch.dtype) -> Any:
    """What `from_pretrained` is given for a language model in ``"8bit"`` or ``"4bit"`` that computes in `dtype`."""
    if bits not in BITS:
        raise UserError(f"a language model can be stored in {' or '.join(BITS)}, not {bits!r}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"a language model in {bits} needs the package bitsandbytes: pip install 'minigpt4[quant]'")
    from transformers import BitsAndBytesConfig

    # It says at every product that it computes in float16 inside, and on a CPU that a faster kernel exists elsewhere.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_AS_THEY_ARE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_AS_THEY_ARE,
    )
