"""How right short answers are: VQA accuracy, and the measures of the other question sets.

Sources: VQA (Antol et al. 2015) and its evaluation tool for the accuracy and the normalisation; the MiniGPT-v2 evaluation
for VizWiz, GQA, VSR and Hateful Memes. What the published evaluation does otherwise is there under ``official=True``.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
MARKS = ';/[]"{}()=+\\_-><@`,?!'

_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_OFFICIAL_PERIODS = 32

# Contractions that the tool gives their apostrophes back. Forms that are words of their own (its, were, ill) are not among
# them, nor those that begin with a capital in the tool's table and so are never met in lower case (Im, Ive).
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
    how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
    oughtn't shan't should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll
    they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've
    who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
    you'll you're you've
""".split()
_ONLY_IN_PART = {
    "she'd've": ("shed've", "she'dve"),
    "we'd've": ("wed've", "we'dve"),
    "'ow's'at": ("ow's'at", "'ows'at", "'ow'sat"),
}


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


RESTORED = {form: word for word in _CONTRACTIONS for form in _without_one_apostrophe(word)}
RESTORED |= {form: word for word, forms in _ONLY_IN_PART.items() for form in forms}
for _word in _CONTRACTIONS:  # a form that is a contraction of its own stays what it is
    RESTORED.pop(_word, None)
RESTORED["somebody'd"] = "somebodyd"  # sic, in the tool


def strip_punctuation(text: str, official: bool = False) -> str:
    """The tool's first step: a mark next to a blank goes, another one becomes a blank; periods go unless a digit follows.

    If two digits have a comma between them, all marks go. The published tool drops the first 32 periods alone.
    """
    all_go = _COMMA.search(text) is not None
    result = text
    for mark in MARKS:
        goes = all_go or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if goes else " ")
    return _PERIOD.sub("", result, count=_OFFICIAL_PERIODS if official else 0)


def plain_words(text: str) -> str:
    """Its second step: lower case, number words as digits, no articles, contractions with their apostrophes."""
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


@lru_cache(100_000)  # people give few answers, many times
def normalise(text: str, official: bool = False) -> str:
    """Both steps."""
    return plain_words(strip_punctuation(_one_line(text), official))


def vqa_accuracy(answer: str, truth: Sequence[str], *, official: bool = False, numbered: bool = True) -> float:
    """Mean over the annotators of min(1, how many *others* gave the answer / 3); 0..1. Of fewer than four annotators all others
    are enough, so that the answer that everybody gave is right.

    Args:
        truth: what each annotator answered, ten of them as a rule.
        official: where all annotators agree, compare the texts as they are (but for the answer's capitals), as the tool
            does; "yes." is then wrong where all say "yes".
        numbered: whether the annotations carry numbers of their own. The published tool leaves out *all* annotations equal to
            the one it leaves out, which are several if they do not.
    """
    answer, truth = _one_line(answer), [_one_line(t) for t in truth]
    if not truth:
        raise ValueError("no annotator's answer")
    if official and len(set(truth)) == 1:
        answer = answer.lower()
    else:
        answer, truth = normalise(answer, official), [normalise(t, official) for t in truth]
    same = [t == answer for t in truth]
    enough = 3 if official else min(3, len(truth) - 1)
    if not enough:
        return float(same[0])
    total = 0.0
    for i, own in enumerate(truth):
        others = sum(same) - same[i] if numbered else sum(s for s, t in zip(same, truth, strict=True) if t != own)
        total += min(1.0, others / enough)
    return total / len(truth)


def vizwiz_accuracy(answer: str, truth: Sequence[str]) -> float:
    """min(1, how many annotators gave the answer / 3), capitals and what surrounds the answer aside; 0..1."""
    answer = answer.strip().lower()
    return min(1.0, sum(t.lower() == answer for t in truth) / 3)


def exact(answer: str, truth: str) -> float:
    """1 if the answer is the true one, capitals and surrounding blanks aside, else 0: GQA and VSR."""
    return float(answer.strip().lower() == truth.strip().lower())


def yes_or_no(answer: str, truth: bool) -> float:
    """1 if the answer is "yes" where it is true or "no" where it is not, else 0: Hateful Memes."""
    return exact(answer, "yes" if truth else "no")


def percent(scores: Iterable[float]) -> float:
    """The mean in percent, to two decimals as the tool reports it."""
    scores = list(scores)
    return round(100 * sum(scores) / len(scores), 2) if scores else 0.0


def percent_by(scores: Iterable[float], groups: Iterable[str]) -> dict[str, float]:
    """`percent` of each group (question types, answer types), in order of appearance."""
    found: dict[str, list[float]] = defaultdict(list)
    for score, group in zip(scores, groups, strict=True):
        found[group].append(score)
    return {group: percent(members) for group, members in found.items()}


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
