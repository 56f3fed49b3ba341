"""METEOR against numbers worked out by hand, and against another library's."""

import random

import pytest

from minigpt4.metrics.caption import plain_tokens
from minigpt4.metrics.meteor import aligned, chunks, meteor

WORDS = "the a dog dogs cat cats runs running run plays played play on in grass red ball balls jumping jumped".split()


@pytest.mark.parametrize(
    ("candidate", "reference", "score"),
    [
        ("a dog runs", "a dog runs", 1 - 0.5 / 27),  # one chunk of three words
        ("a dog", "the cat", 0.0),
        ("", "the cat", 0.0),
        ("dogs", "dog", 1 - 0.5),  # the stem alone: one match, one chunk
        ("a dog runs", "runs a dog", 1 - 0.5 * (2 / 3) ** 3),  # "a dog" and "runs"
        ("a dog", "a dog runs fast", (0.5 / (0.9 + 0.1 * 0.5)) * (1 - 0.5 / 8)),  # P = 1, R = 1/2
        ("a dog runs fast", "a dog", (0.5 / (0.9 * 0.5 + 0.1)) * (1 - 0.5 / 8)),  # P = 1/2, R = 1
    ],
)
def test_by_hand(candidate, reference, score):
    assert meteor([[reference]], [candidate]) == [pytest.approx(score)]


def test_the_best_reference_counts():
    assert meteor([["the cat", "a dog runs"]], ["a dog runs"]) == meteor([["a dog runs"]], ["a dog runs"])


def test_words_that_come_again_keep_their_neighbours():
    pairs = aligned("the dog sees the cat".split(), "the cat sees the dog".split(), str)
    assert pairs == [(0, 0), (1, 4), (2, 2), (3, 3), (4, 1)]
    assert chunks(pairs) == 4
    assert chunks([(0, 3), (1, 4), (2, 0)]) == 2


def test_as_another_library_has_it():
    """NLTK, with a WordNet that knows nothing. It aligns words that come again by another rule, so none do here."""
    nltk = pytest.importorskip("nltk.translate.meteor_score")
    from nltk.stem.snowball import SnowballStemmer

    class Nothing:
        def synsets(self, word):
            return []

    stemmer = SnowballStemmer("english")
    rng = random.Random(0)
    for _ in range(200):
        stems: dict[str, str] = {}
        for word in rng.sample(WORDS, len(WORDS)):
            stems.setdefault(stemmer.stem(word), word)
        words = list(stems.values())
        forms = {stemmer.stem(word): word for word in rng.sample(WORDS, len(WORDS))}
        candidate = [forms[stemmer.stem(word)] for word in rng.sample(words, rng.randint(1, len(words)))]
        references = [rng.sample(words, rng.randint(1, len(words))) for _ in range(3)]
        theirs = nltk.meteor_score(references, candidate, stemmer=stemmer, wordnet=Nothing(), alpha=0.9, beta=3, gamma=0.5)
        ours = meteor([[" ".join(words) for words in references]], [" ".join(candidate)], plain_tokens)[0]
        assert ours == pytest.approx(theirs, abs=1e-9)
