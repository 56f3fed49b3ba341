"""How well sentences agree with those that people wrote: CIDEr, BLEU-4, ROUGE-L.

All three are those of the COCO caption tools, number for number, given the same tokens. Those tools tokenise with Stanford's
PTBTokenizer, a Java program; `ptb_tokens` does in Python what it does to ordinary captions.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

Tokenizer = Callable[[str], list[str]]

_NOT_WORD = re.compile(r"[^a-z0-9' ]")
_PTB = re.compile(
    r"(?:[a-z]\.){2,}"  # u.s., p.m.
    r"|(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|no)\.(?=\s|$)"
    r"|n't|'(?:s|m|d|ll|re|ve)\b"
    r"|\d+(?:[.,:/]\d+)*[a-z]*(?:-[a-z0-9]+)*"
    r"|[a-z0-9]+(?:[-/&'][a-z0-9]+)*"
    r"|\w+"
    r"|[^\w\s]"
)
_NO_WORDS = frozenset(["''", "``", "--", "...", *"'`.?!,:-;(){}[]\""])


def plain_tokens(text: str) -> list[str]:
    """Lower-case words of letters, digits and apostrophes; everything else is a gap."""
    return _NOT_WORD.sub(" ", text.lower()).split()


def ptb_tokens(text: str) -> list[str]:
    """Lower-case tokens as the Penn Treebank has them (``do n't``, ``man 's``), punctuation left out as in the COCO tools."""
    text = re.sub(r"\bcannot\b", "can not", text.lower().replace("\u2019", "'"))
    text = re.sub(r"(\w)(n't|'(?:s|m|d|ll|re|ve))\b", r"\1 \2", text)
    return [token for token in _PTB.findall(text) if token not in _NO_WORDS]


TOKENIZERS: dict[str, Tokenizer] = {"plain": plain_tokens, "ptb": ptb_tokens}

# CIDEr -------------------------------------------------------------------------------------------------------------------

Grams = Counter[tuple[str, ...]]
_LONGEST = 4
_SIGMA = 6.0


class Cider:
    """CIDEr-D (Vedantam et al. 2015, as the COCO tools compute it): how much a caption says what people say of the picture,
    rare words and phrases counting more.

    What the tools call the length of a sentence is the number of its pairs of words; so it is here.

    Args:
        corpus: for each item of a set, what people wrote; how rare an n-gram is, is counted over it.
    """

    def __init__(self, corpus: Sequence[Sequence[str]], tokens: Tokenizer = plain_tokens):
        self.tokens = tokens
        self._frequency: Grams = Counter(g for texts in corpus for g in set().union(*(_grams(tokens(t)) for t in texts)))
        self._log_items = math.log(max(len(corpus), 2))

    def __call__(self, references: Sequence[str], candidate: str) -> float:
        """The score, 0..10, of one candidate against its references."""
        own, own_norms, own_length = self._vector(candidate)
        total = 0.0
        for ref, ref_norms, ref_length in map(self._vector, references):
            penalty = math.exp(-((own_length - ref_length) ** 2) / (2 * _SIGMA**2))
            for n in range(_LONGEST):
                shared = sum(min(w, ref[n][g]) * ref[n][g] for g, w in own[n].items() if g in ref[n])
                norm = own_norms[n] * ref_norms[n]
                total += penalty * (shared / norm if norm else shared)
        return 10 * total / _LONGEST / len(references)

    def _vector(self, text: str) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        grams = _grams(self.tokens(text))
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(_LONGEST)]
        for gram, count in grams.items():
            weights[len(gram) - 1][gram] = count * (self._log_items - math.log(max(1.0, self._frequency[gram])))
        norms = [math.sqrt(sum(w * w for w in by_length.values())) for by_length in weights]
        return weights, norms, sum(count for gram, count in grams.items() if len(gram) == 2)


def cider(references: Sequence[Sequence[str]], candidates: Sequence[str], tokens: Tokenizer = plain_tokens) -> list[float]:
    """CIDEr-D of each candidate against its references, which are also the corpus; their mean is the usual score."""
    score = Cider(references, tokens)
    return [score(texts, candidate) for texts, candidate in zip(references, candidates, strict=True)]


def _grams(tokens: Sequence[str]) -> Grams:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, _LONGEST + 1) for i in range(len(tokens) - n + 1))


# BLEU and ROUGE ----------------------------------------------------------------------------------------------------------


def bleu(references: Sequence[Sequence[str]], candidates: Sequence[str], tokens: Tokenizer = plain_tokens) -> float:
    """BLEU-4 of a whole set, 0..1, each sentence against the reference nearest to it in length (Papineni et al. 2002)."""
    right, guessed = [0] * _LONGEST, [0] * _LONGEST
    length = ref_length = 0
    for texts, candidate in zip(references, candidates, strict=True):
        own, refs = tokens(candidate), [tokens(text) for text in texts]
        length += len(own)
        ref_length += min((abs(len(ref) - len(own)), len(ref)) for ref in refs)[1]
        most: dict[tuple[str, ...], int] = defaultdict(int)
        for ref in refs:
            for gram, count in _grams(ref).items():
                most[gram] = max(most[gram], count)
        for gram, count in _grams(own).items():
            guessed[len(gram) - 1] += count
            right[len(gram) - 1] += min(count, most.get(gram, 0))
    if not all(right):
        return 0.0
    precision = math.exp(sum(math.log(r / g) for r, g in zip(right, guessed, strict=True)) / _LONGEST)
    return precision * min(1.0, math.exp(1 - ref_length / length))


def rouge_l(references: Sequence[Sequence[str]], candidates: Sequence[str], tokens: Tokenizer = plain_tokens) -> list[float]:
    """ROUGE-L of each candidate, 0..1: the longest common subsequence, recall weighing 1.2 (Lin 2004)."""
    beta = 1.2**2
    scores = []
    for texts, candidate in zip(references, candidates, strict=True):
        own = tokens(candidate)
        common = [(_common(own, ref), len(ref)) for ref in map(tokens, texts)]
        precision = max(c / max(len(own), 1) for c, _ in common)
        recall = max(c / max(n, 1) for c, n in common)
        scores.append((1 + beta) * precision * recall / (recall + beta * precision) if precision and recall else 0.0)
    return scores


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for j, other in enumerate(b):
            before, row[j + 1] = row[j + 1], before + 1 if word == other else max(row[j + 1], row[j])
    return row[-1]
