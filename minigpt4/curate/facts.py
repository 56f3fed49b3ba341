"""What a caption claims that another one could contradict: numbers of things, colours, who, and where. Rules about English."""

import re
from dataclasses import dataclass, field

from ..metrics.phrase import COLOURS, head_place
from ..metrics.words import ADULT, CHILD, FEMALE, MALE, NEUTRAL, PEOPLE, PLURAL_ONLY, singular, words

NUMBERS = {word: n for n, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)}
NUMBERS |= {str(n): n for n in range(1, 11)} | {"a": 1, "an": 1, "another": 1}
VAGUE = words("several many some few multiple various numerous")
GROUPS = {"pair": 2, "couple": 2, "trio": 3}  # of how many; other groups are of "two or more"
GROUPS |= dict.fromkeys(words("group crowd bunch team row line pack herd flock number lot band crew class"), 0)

INSIDE = words(
    "indoors indoor inside room kitchen bedroom bathroom livingroom office gym restaurant hallway classroom couch sofa "
    "carpet rug"
)
OUTSIDE = words(
    "outdoors outdoor outside field grass grassy beach street park snow snowy mountain lake ocean river forest sky sand sandy "
    "road sidewalk yard hill meadow woods trail sea"
)

_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z]+)*|[,;:.]")


@dataclass
class Facts:
    """What a sentence says, as far as rules can tell."""

    counts: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """Of each thing how many: exactly, or at least so many."""
    colours: dict[str, set[str]] = field(default_factory=dict)
    """Of each thing what colours."""
    words: frozenset[str] = frozenset()
    """All words, each in its singular."""

    def people(self) -> tuple[int, bool]:
        """How many people in all: exactly, or at least so many."""
        counts = [count for noun, count in self.counts.items() if noun in PEOPLE]
        return sum(n for n, _ in counts), all(exact for _, exact in counts)


def facts_of(sentence: str) -> Facts:
    """What a sentence says."""
    tokens = _WORD.findall(sentence.lower())
    facts = Facts(words=frozenset(map(singular, tokens)))
    counted: set[int] = set()
    coloured: set[int] = set()
    for i, token in enumerate(tokens):
        number = NUMBERS.get(token)
        if number is None and token not in VAGUE:
            continue
        head = head_place(tokens, i + 1, sentence=True, one=number == 1)
        if head is None:
            continue
        for place in range(i + 1, head):
            if tokens[place] in COLOURS:
                coloured.add(place)
                facts.colours.setdefault(singular(tokens[head]), set()).add(COLOURS[tokens[place]])
        least, exact = (number, True) if number is not None else (2, False)
        if tokens[head] in GROUPS and tokens[head + 1 : head + 2] == ["of"]:
            least, exact = GROUPS[tokens[head]] or 2, GROUPS[tokens[head]] > 0
            head = head_place(tokens, head + 2, sentence=True) or head
        counted.add(head)
        _add(facts, tokens[head], least, exact)
    for i, token in enumerate(tokens):
        if token in COLOURS and i not in coloured and (head := head_place(tokens, i + 1, sentence=True)) is not None:
            # Without a number "the red car turns" looks like "red tennis shoes": both words may be what is red.
            for place in {head, head - 1} - set(range(i + 1)):
                facts.colours.setdefault(singular(tokens[place]), set()).add(COLOURS[token])
        if i not in counted and singular(token) != token and token not in PLURAL_ONLY:
            _add(facts, token, 2, False)  # more than one; a verb in -s does no harm here, nobody counts verbs
    return facts


def _add(facts: Facts, noun: str, least: int, exact: bool) -> None:
    noun = singular(noun)
    before, was_exact = facts.counts.get(noun, (0, True))
    facts.counts[noun] = (before + least, exact and was_exact)


def contradict(a: Facts, b: Facts) -> str | None:
    """What two sentences about the same picture disagree in, if they do: a word for it."""
    for noun in a.counts.keys() & b.counts.keys():
        if _differ(a.counts[noun], b.counts[noun]):
            return f"number of {noun}"
    neutral = any(noun in NEUTRAL for facts in (a, b) for noun in facts.counts)
    if neutral and a.people()[0] and b.people()[0] and _differ(a.people(), b.people()):
        return "number of people"
    for noun in a.colours.keys() & b.colours.keys():
        if not a.colours[noun] & b.colours[noun]:
            return f"colour of {noun}"
    for kind, one, other in (("sex", MALE, FEMALE), ("age", ADULT, CHILD), ("place", INSIDE, OUTSIDE)):
        sides = [(bool(facts.words & one), bool(facts.words & other)) for facts in (a, b)]
        if sides in ([(True, False), (False, True)], [(False, True), (True, False)]):
            return kind
    return None


def _differ(a: tuple[int, bool], b: tuple[int, bool]) -> bool:
    (n, exact), (m, other_exact) = a, b
    return (n != m) if exact and other_exact else (exact and n < m) or (other_exact and m < n)
