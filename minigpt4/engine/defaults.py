"""What a system says of how it is decoded, where nothing else is said."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .params import SamplingParams

MAX_NEW_TOKENS = 300  # of systems that do not say
_NAMES = (
    "do_sample temperature top_p top_k repetition_penalty no_repeat_ngram_size min_new_tokens num_beams length_penalty"
).split()


@dataclass(frozen=True)
class Defaults:
    """A system's generation_config.json, and what its language model can look back on."""

    settings: Mapping[str, Any]
    max_new_tokens: int | None
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    context: int
    """How many tokens the language model can look back on."""
    early_stopping: bool | str | None = False
    """When a beam search ends (`engine.beams.BeamSearch`)."""

    @classmethod
    def of(cls, generation_config: Any, text_config: Any) -> "Defaults":
        """What the library's objects say."""
        settings = {name: getattr(generation_config, name, None) for name in _NAMES}
        if settings["do_sample"] is not True:  # files name temperatures that are not used
            for name in ("temperature", "top_p", "top_k"):
                settings[name] = None
        if (settings["num_beams"] or 1) == 1:
            settings["length_penalty"] = None
        ends = generation_config.eos_token_id
        end_ids = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
        context = getattr(text_config, "max_position_embeddings", None) or sys.maxsize
        return cls(settings, generation_config.max_new_tokens, end_ids, context, generation_config.early_stopping)

    @property
    def most_new_tokens(self) -> int:
        """How long an answer may get where nothing is said: as the system says, or as in the official chats, less in a small
        context."""
        return self.max_new_tokens or min(MAX_NEW_TOKENS, self.context // 4)

    def params(self, *layers: Mapping[str, Any]) -> SamplingParams:
        """Sampling parameters: the system's, then each layer of settings, the most important last."""
        return SamplingParams.from_settings(self.settings, *layers).with_room(self.most_new_tokens)
