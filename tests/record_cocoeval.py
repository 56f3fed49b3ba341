"""Records what the COCO caption tools say of 200 captions, for tests/test_metrics.py.

    pip install pycocoevalcap==1.2 --no-deps --target /tmp/tools
    python tests/record_cocoeval.py /tmp/tools > tests/data/cocoeval.json

Its Python parts alone are used (CIDEr-D, BLEU, ROUGE-L), on words that are apart already: no Java. The package weighs 104 MB,
these are a few kB of it; that is why what it says is recorded. The captions are drawn from a few words of ours.
"""

import hashlib
import json
import random
import sys

NOUNS = "dog man woman child bus cat horse pizza train bird kite surfer".split()
OTHERS = "red small brown old two young wooden wet".split()
DOES = "runs sits jumps stands waits eats sleeps plays".split()
WHERE = "on the beach|in the snow|near a tree|beside the road|at a table|under the bridge|with a ball".split("|")


def sentence(draw: random.Random, noun: str) -> str:
    """A caption of up to about fifteen words; now and then one word, or the same one again and again."""
    kind = draw.random()
    if kind < 0.03:
        return noun
    if kind < 0.06:
        return " ".join([noun] * draw.randrange(2, 12))
    words = ["a", *draw.sample(OTHERS, draw.randrange(3)), noun, draw.choice(DOES), *draw.choice(WHERE).split()]
    return " ".join(words if kind < 0.6 else [*words, "and", draw.choice(DOES), *draw.choice(WHERE).split()])


def captions(count: int = 200, seed: int = 0) -> tuple[list[list[str]], list[str]]:
    """References, two to five an item, and candidates."""
    draw = random.Random(seed)
    references, candidates = [], []
    for _ in range(count):
        noun = draw.choice(NOUNS)
        references.append([sentence(draw, noun) for _ in range(draw.randrange(2, 6))])
        candidates.append(sentence(draw, noun if draw.random() < 0.8 else draw.choice(NOUNS)))
    return references, candidates


def digest(references: list[list[str]], candidates: list[str]) -> str:
    return hashlib.sha256(json.dumps([references, candidates]).encode()).hexdigest()[:16]


def main(tools: str) -> None:
    sys.path.insert(0, tools)
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-not-found]
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-not-found]
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-not-found]

    references, candidates = captions()
    truth = dict(enumerate(references))
    said = {i: [text] for i, text in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    _, each_cider = Cider().compute_score(truth, said)
    _, each_rouge = Rouge().compute_score(truth, said)
    rounded = {name: [round(float(v), 9) for v in values] for name, values in (("cider", each_cider), ("rouge_l", each_rouge))}
    print(json.dumps({"captions": digest(references, candidates), "bleu": [float(v) for v in bleu], **rounded}))


if __name__ == "__main__":
    main(sys.argv[1])
