"""Sampling parameters: how one request is decoded, typed, and checked once.

Names are those of the OpenAI API and of `transformers`. A setting that does not go with another one is refused, none is
dropped.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from ..errors import UserError

MOST_LOGPROBS = 20
MOST_ANSWERS = 128  # to one prompt
_SAMPLING = ("temperature", "top_p", "top_k")
_PLAIN = {"top_p": 1.0, "top_k": 0}
"""What lets every token through: given alone, it does not ask for sampling."""
COLDEST = 1e-4
"""The lowest temperature at which tokens are sampled; logits over a smaller one may be infinite in float32."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How a request is decoded.

    Raises:
        UserError: a value out of range, or settings that do not go together.
    """

    max_new_tokens: int | None = None
    """Most tokens of an answer; as the system says when not given."""
    min_new_tokens: int = 0
    """The answer does not end before it has so many tokens, unless a stop text comes."""
    temperature: float = 0.0
    """0 takes the likeliest token each time (greedy); above it, tokens are sampled."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that have this probability together."""
    top_k: int = 0
    """Sample among so many likeliest tokens; 0 for all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the answer has already become less likely (arXiv 1909.05858)."""
    no_repeat_ngram_size: int = 0
    """No run of so many tokens comes twice in an answer; 0 for no such rule."""
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends, beside those of the system; they are not part of it."""
    n: int = 1
    """Answers to the one prompt."""
    seed: int | None = None
    """Of the samples; others each time when not given."""
    stratified: bool = False
    """Spread the `n` samples evenly over the distribution (stratified sampling): few then stand for the whole."""
    logprobs: int | None = None
    """Give the log-probability of each token of the answer, and of so many likeliest ones in its place (0 to 20)."""
    num_beams: int = 1
    """Beam search with so many beams."""
    length_penalty: float = 1.0
    """Of beam search: above 0 favours long answers."""

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("min_new_tokens", 0), ("top_k", 0), ("no_repeat_ngram_size", 0)):
            self._whole(name, least)
        for name, least, most in (("n", 1, MOST_ANSWERS), ("num_beams", 1, MOST_ANSWERS), ("logprobs", 0, MOST_LOGPROBS)):
            self._whole(name, least, most)
        self._whole("seed", -(2**63), 2**63 - 1)
        self._number("temperature", lambda value: value == 0 or value >= COLDEST, f"0 (greedy) or at least {COLDEST}")
        self._number("top_p", lambda value: 0 <= value <= 1, "from 0 to 1")
        self._number("repetition_penalty", lambda value: value > 0, "above 0")
        self._number("length_penalty", lambda value: -10 <= value <= 10, "from -10 to 10")
        if not isinstance(self.stop, list | tuple) or not all(isinstance(text, str) and text for text in self.stop):
            raise UserError("stop must be a list of texts, none of them empty")
        object.__setattr__(self, "stop", tuple(self.stop))
        self._together()

    def _whole(self, name: str, least: int, most: int | None = None) -> None:
        value = getattr(self, name)
        if value is None and name in ("max_new_tokens", "seed", "logprobs"):
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise UserError(f"{name} must be a whole number, {limits}, not {value!r}")

    def _number(self, name: str, within: Callable[[float], bool], limits: str) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not within(value):
            raise UserError(f"{name} must be {limits}, not {value!r}")

    def _together(self) -> None:
        if not self.temperature:
            for name, plain in (_PLAIN | {"stratified": False}).items():
                if getattr(self, name) != plain:
                    raise UserError(f"{name} is for sampling: set a temperature above 0")
        if self.num_beams > 1:
            if self.temperature:
                raise UserError("temperature does not go with num_beams: beam search does not sample")
            if self.logprobs is not None:
                raise UserError("logprobs does not go with num_beams: leave one of them out")
            if self.n > self.num_beams:
                raise UserError(f"n={self.n} answers cannot come from num_beams={self.num_beams} beams")
        else:
            if self.length_penalty != 1.0:
                raise UserError("length_penalty goes with num_beams: it weighs the beams of a beam search")
            if self.n > 1 and not self.temperature:
                raise UserError(f"n={self.n} answers would all be the same: set a temperature above 0")
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise UserError(f"min_new_tokens={self.min_new_tokens} is more than max_new_tokens={self.max_new_tokens}")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn by chance."""
        return self.temperature > 0

    @classmethod
    def from_settings(cls, *layers: Mapping[str, Any]) -> "SamplingParams":
        """Parameters from settings with the names of `transformers` generation, the most important ones last.

        ``do_sample`` says whether to sample; a temperature alone says so too, and a top_p or top_k that leaves tokens out. What
        a later layer says of the way of decoding (beams, sampling, greedy) takes the earlier layers' settings of other ways
        out. None: not given.

        Raises:
            UserError: an unknown name, or what `SamplingParams` refuses.
        """
        merged = layered(*layers)
        if merged.pop("do_sample", False):
            merged.setdefault("temperature", 1.0)
        elif not merged.get("temperature"):
            merged.pop("temperature", None)
        if isinstance(merged.get("stop"), str):
            merged["stop"] = (merged["stop"],)
        return cls(**merged)

    def with_room(self, max_new_tokens: int) -> "SamplingParams":
        """The same, with a limit where none was given."""
        return (
            self if self.max_new_tokens is not None else replace(self, max_new_tokens=max(max_new_tokens, self.min_new_tokens))
        )


NAMES = frozenset(field.name for field in fields(SamplingParams)) | {"do_sample"}
"""Settings that `SamplingParams.from_settings` takes."""


def check_names(given: Mapping[str, Any], others: frozenset[str] = frozenset()) -> None:
    """Raises a UserError for a setting that does not exist, with the one that was perhaps meant."""
    for name in given:
        if name not in NAMES | others:
            near = get_close_matches(name, sorted(NAMES | others), 1, 0.75)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"unknown setting {name}{hint}; there are {', '.join(sorted(NAMES | others))}")


def layered(*layers: Mapping[str, Any], others: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Layers of settings as one, the most important ones last; see `SamplingParams.from_settings`.

    Args:
        others: names that are settings too, beside those of sampling.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        given = {name: value for name, value in layer.items() if value is not None}
        check_names(given, others)
        for name in ("do_sample", "stratified"):
            if not isinstance(given.get(name, False), bool):
                raise UserError(f"{name} must be true or false, not {given[name]!r}")
        if given.get("do_sample") is False and (clash := [name for name in _SAMPLING if name in given]):
            raise UserError(f"{clash[0]} does not go with do_sample=False: leave one of them out")
        if given.get("temperature") == 0:
            if given.get("do_sample"):
                raise UserError("do_sample does not go with temperature=0, which is greedy: leave one of them out")
            given["do_sample"] = False
        elif any(name in given and given[name] != _PLAIN.get(name) for name in _SAMPLING):
            given["do_sample"] = True
        beams = given.get("num_beams", 1)
        if isinstance(beams, int) and beams > 1 and given.get("do_sample"):
            clash = [name for name in (*_SAMPLING, "do_sample") if layer.get(name) is not None]
            raise UserError(f"{clash[0]} does not go with num_beams={beams}: beam search does not sample")
        if given.get("do_sample") is False or (isinstance(beams, int) and beams > 1):
            for name in (*_SAMPLING, "do_sample", "stratified"):
                merged.pop(name, None)
        if given.get("do_sample") or ("num_beams" in given and beams == 1):
            for name in ("num_beams", "length_penalty"):
                merged.pop(name, None)
        if given.get("do_sample") and merged.get("temperature") == 0:
            merged.pop("temperature")
        merged |= given
    if merged.get("do_sample") is False:
        merged.pop("temperature", None)
    return merged
