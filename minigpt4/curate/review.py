"""What reviewers decide: an append-only log, so that nobody overwrites anybody and nothing is lost."""

import contextlib
import errno
import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from ..errors import UserError
from ..io.jsonl import Output, Row, read_rows
from ..jobs.made_by import IMAGES
from .steps import digest

Action = Literal["accept", "edit", "reject", "ignore", "undo"]
ACTIONS: tuple[Action, ...] = get_args(Action)
LOG = "review.jsonl"
MOST_TEXT = 20_000
"""Characters of an edited text."""


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided about a text; `text` is the edited one."""

    action: Action
    text: str | None = None


class Review:
    """The log of a curation folder. Every entry is on disk before it counts.

    Args:
        path: the log, ``{"id", "reviewer", "action", "text", "about", "time"}`` a line.
        ids: of the texts under review, each with what it is about (`about`). A decision about something else, which had that id
            before images were added or texts made anew, does not count.

    Raises:
        UserError: the log has a line that is no entry.
    """

    def __init__(self, path: Path, ids: Mapping[str, str]):
        self.path, self.ids = path, dict(ids)
        self._lock = Lock()
        self._stacks: dict[tuple[str, str], list[Decision]] = defaultdict(list)
        log = Output(path, "action")  # mends a line that a kill cut short
        log.close()
        for entry in log.rows:
            self._take(entry)

    def decide(self, id: str, reviewer: str, action: str, text: str | None = None) -> Decision | None:
        """Note a decision; returns what now stands for that reviewer (after ``undo``, what stood before).

        Raises:
            UserError: an unknown text or action, no reviewer, or an edit without text.
        """
        if id not in self.ids:
            raise UserError(f"no text {id!r} is under review")
        if action not in ACTIONS:
            raise UserError(f"no action {action!r}; there are {', '.join(ACTIONS)}")
        if not reviewer.strip() or len(reviewer) > 100:
            raise UserError("a decision needs a reviewer's name (at most 100 characters)")
        if (action == "edit") != (text is not None) or (text is not None and not 0 < len(text.strip()) <= MOST_TEXT):
            raise UserError(f"an edit needs its text, of 1 to {MOST_TEXT:,} characters; other actions have none")
        entry: Row = {"id": id, "reviewer": reviewer.strip(), "action": action}
        if text is not None:
            entry["text"] = text.strip()
        entry["about"] = self.ids[id]
        entry["time"] = round(time.time(), 3)
        with self._lock:
            self._append(entry)
            self._take(entry)
            return self.standing(id, entry["reviewer"])

    def _append(self, entry: Row) -> None:
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        before = None
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
        except OSError as error:
            if before is not None:  # half an entry would spoil the next one too
                with contextlib.suppress(OSError):
                    os.truncate(self.path, before)
            raise UserError(f"{self.path}: cannot write ({error.strerror}); the decision is not kept") from None

    def _take(self, entry: Mapping[str, Any]) -> None:
        id, reviewer, action, text = (entry.get(name) for name in ("id", "reviewer", "action", "text"))
        of_its_kind = isinstance(text, str) if action == "edit" else text is None
        if not isinstance(id, str) or not isinstance(reviewer, str) or action not in ACTIONS or not of_its_kind:
            raise UserError(f"{self.path}: an entry is none ({str(entry)[:80]}); take that line out")
        if entry.get("about", self.ids.get(id)) != self.ids.get(id):
            return
        stack = self._stacks[id, reviewer]
        if action == "undo":
            if stack:
                stack.pop()
        else:
            stack.append(Decision(action, text))

    def standing(self, id: str, reviewer: str) -> Decision | None:
        """What stands for a reviewer."""
        stack = self._stacks.get((id, reviewer))
        return stack[-1] if stack else None

    @property
    def reviewers(self) -> list[str]:
        """Everyone who has a decision standing, by name."""
        with self._lock:  # others decide meanwhile
            return sorted({reviewer for (_, reviewer), stack in self._stacks.items() if stack})

    def of(self, id: str) -> dict[str, Decision]:
        """What stands for a text, by reviewer."""
        return {reviewer: one for reviewer in self.reviewers if (one := self.standing(id, reviewer)) is not None}

    def codes(self, ids: Sequence[str], reviewer: str) -> str:
        """A reviewer's decisions about texts as one letter each: a, e, r, i, or a dot for none."""
        standing = (self.standing(id, reviewer) for id in ids)
        return "".join("." if one is None else one.action[0] for one in standing)


def about(row: Row) -> str:
    """A digest of what a reviewer judges: an image and its text."""
    return digest([row.get(IMAGES, row["image"]), row["text"]])


def verdict(decisions: Mapping[str, Decision], text: str) -> tuple[Literal["keep", "drop", "conflict", "open"], str]:
    """What several reviewers' decisions come to, and the text that stands.

    Those who ignore a text have no opinion. Who keeps it and who rejects it must agree, and so must two edits.
    """
    views = [one for one in decisions.values() if one.action != "ignore"]
    if not views:
        return "open", text
    if all(one.action == "reject" for one in views):
        return "drop", text
    if any(one.action == "reject" for one in views):
        return "conflict", text
    edits = {one.text for one in views if one.text is not None}
    if len(edits) > 1:
        return "conflict", text
    return "keep", edits.pop() if edits else text


def agreement(review: Review) -> list[dict[str, Any]]:
    """Of every two reviewers: how many texts both judged, the share on which they agree (keep or reject), and Cohen's kappa."""
    found = []
    for one, other in combinations(review.reviewers, 2):
        pairs = []
        for id in sorted(review.ids):
            both = [review.standing(id, name) for name in (one, other)]
            if all(decision is not None and decision.action != "ignore" for decision in both):
                pairs.append(tuple(decision.action != "reject" for decision in both if decision is not None))
        row: dict[str, Any] = {"reviewers": [one, other], "both": len(pairs)}
        if pairs:
            same = sum(a == b for a, b in pairs) / len(pairs)
            keeps = [sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1)]
            chance = keeps[0] * keeps[1] + (1 - keeps[0]) * (1 - keeps[1])
            row |= {"agree": same, "kappa": 1.0 if chance == 1 else (same - chance) / (1 - chance)}
        found.append(row)
    return found


def texts_to_review(folder: Path) -> list[Row]:
    """The rows of a curation folder after its rules: those that passed first.

    Raises:
        UserError: there are none yet.
    """
    path = folder / "6_rules.jsonl"
    if not path.is_file():
        raise UserError(f"{folder}: no {path.name} in it; run minigpt4 curate run RECIPE.yaml first")
    rows = []
    for number, row in read_rows(path):
        if isinstance(row, UserError):
            raise row
        if missing := [key for key in ("id", "image", "text") if not isinstance(row.get(key), str)]:
            raise UserError(f'{path}:{number}: no "{missing[0]}" in this row')
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: nothing to review in it")
    return sorted(rows, key=lambda row: not row.get("keep"))
