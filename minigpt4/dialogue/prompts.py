"""What the partners of a dialogue are told: a YAML file that people may change."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError

SHIPPED = Path(__file__).with_name("prompts.yaml")
_MAY_NAME: dict[str, dict[str, set[str]]] = {
    "image": {"redirect": {"asked"}, "answer": {"context", "question"}, "crop": {"noun"}, "summary": {"unfound"}}
    | {"unfound": {"nouns"}, "from_caption": {"caption", "question"}, "first_question": set(), "task": set(), "next": set()},
    "video": {"task": {"frames", "times"}, "redirect": {"frame"}, "answer": {"question"}, "segment": {"start", "end", "facts"}}
    | {"summary": {"segments"}, "from_caption": {"caption", "question"}, "first_question": set(), "next": set()},
}


@dataclass(frozen=True)
class Wording:
    """The prompts of one kind of dialogue. `fill` puts in what they leave open."""

    texts: Mapping[str, str]
    spare_questions: tuple[str, ...]

    def fill(self, name: str, **values: object) -> str:
        """The prompt of that name."""
        return self.texts[name].format(**values).strip()


def load_prompts(path: str | Path | None = None) -> dict[str, Wording]:
    """The wordings for ``image`` and ``video``; what a file leaves out is as shipped.

    Raises:
        UserError: a file that cannot be read, an unknown key, or a name in braces that is not filled in there.
    """
    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    given: Any = {}
    if path is not None:
        try:
            given = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
        except yaml.YAMLError as error:
            raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    _keys(given, shipped, str(path))
    found = {}
    for kind, own in shipped.items():
        _keys(given.get(kind) or {}, own, f"{path}: {kind}")
        merged = own | (given.get(kind) or {})
        spare = merged.pop("spare_questions")
        if not isinstance(spare, list) or not all(isinstance(text, str) and text.strip() for text in spare):
            raise UserError(f"{path}: {kind}.spare_questions must be a list of questions")
        for name, text in merged.items():
            _check(text, _MAY_NAME[kind][name], f"{path}: {kind}.{name}")
        found[kind] = Wording(merged, tuple(spare))
    return found


def _keys(given: Any, known: Mapping[str, Any], where: str) -> None:
    if not isinstance(given, dict):
        raise UserError(f"{where}: expected a mapping with any of {', '.join(known)}")
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), list(known), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"{where}: unknown key {key!r}{hint}; there are {', '.join(known)}")


def _check(text: Any, may_name: set[str], where: str) -> None:
    if not isinstance(text, str):
        raise UserError(f"{where} must be text")
    try:
        named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise UserError(f"{where}: {error}; a brace itself is written twice") from None
    if wrong := named - may_name:
        known = ", ".join(f"{{{name}}}" for name in sorted(may_name)) or "none"
        raise UserError(f"{where}: {{{sorted(wrong)[0]}}} is not filled in here; there are {known}")
