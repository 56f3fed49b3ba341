"""The account of an import: every tensor of every file, every weight of the model."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError
from .files import Weights
from .keys import Place, Unneeded


@dataclass
class FileAccount:
    """What became of the tensors of one file."""

    file: Path
    used: int = 0
    unneeded: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By reason, the names of those that nothing wants."""
    beside: tuple[str, ...] = ()
    """Other things that stand in the file."""


@dataclass
class Account:
    """The whole account; `lines` prints it."""

    kind: str
    files: list[FileAccount] = field(default_factory=list)
    filled: int = 0
    parameters: int = 0
    """How many numbers the filled weights are."""
    initial: dict[str, str] = field(default_factory=dict)
    """Weights that keep what they begin with, and why."""
    notes: list[str] = field(default_factory=list)
    """What else was understood."""

    def lines(self) -> list[str]:
        """The account as text: nothing of any file is left unsaid."""
        lines = [f"kind: {self.kind}"]
        for entry in self.files:
            total = entry.used + sum(map(len, entry.unneeded.values()))
            lines.append(f"{entry.file.name}: {total} tensors, {entry.used} used")
            lines += [f"  not needed: {len(names)} ({why}): {_some(names)}" for why, names in entry.unneeded.items()]
            if entry.beside:
                lines.append(f"  not weights: {', '.join(entry.beside)}")
        lines.append(f"model: {self.filled + len(self.initial)} weights, {self.filled} filled ({self.parameters:,} numbers)")
        lines += [f"  {name}: {why}" for name, why in self.initial.items()]
        return lines + self.notes


@dataclass(frozen=True)
class Source:
    """Where a weight of ours, or a part of it, comes from."""

    weights: Weights
    name: str


class Plan:
    """Which published tensor becomes which weight of ours. Later files take the place of earlier ones."""

    def __init__(self, kind: str):
        self.account = Account(kind)
        self.sources: dict[str, dict[str, Source]] = {}

    def add(self, weights: Weights, place_of, what: str, beside: tuple[str, ...] = ()) -> None:
        """Enter a file.

        Args:
            place_of: name -> `Place`, `Unneeded`, or ``None`` for a name that is not known.
            what: what the file should be, for messages.

        Raises:
            UserError: a tensor that is not known, or a part without its other part.
        """
        entry = FileAccount(weights.file, beside=beside)
        unknown = []
        for name in weights.names():
            place = place_of(name)
            if place is None:
                unknown.append(name)
            elif isinstance(place, Unneeded):
                entry.unneeded[place.why].append(name)
            else:
                self._enter(place, Source(weights, name))
                entry.used += 1
        if unknown:
            raise UserError(
                f"{weights.file}: {len(unknown)} tensor(s) that {what} does not have, the first is {unknown[0]!r} "
                "(a file of another system, or with renamed keys)"
            )
        self.account.files.append(entry)

    def _enter(self, place: Place, source: Source) -> None:
        parts = self.sources.setdefault(place.name, {})
        if before := parts.get(place.part):
            entry = next(entry for entry in self.account.files if entry.file == before.weights.file)
            entry.used -= 1
            entry.unneeded[f"trained further in {source.weights.file.name}"].append(before.name)
        parts[place.part] = source


def _some(names: list[str]) -> str:
    """Names by what they begin with, each with its number."""
    if len(names) <= 3:
        return ", ".join(names)
    groups: dict[str, int] = defaultdict(int)
    for name in names:
        first, _, rest = name.partition(".")
        second = rest.partition(".")[0]
        groups[f"{first}.{second}.*" if second.isdigit() else f"{first}.*"] += 1
    return ", ".join(f"{group} ({count})" for group, count in groups.items())
