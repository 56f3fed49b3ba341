"""Composes answers to free requests by rules, where the small writer of `talk.py` writes badly: what it says is what people
said.

    python recipes/pocket/compose.py data/pocket data/pocket/composed.jsonl

Each answer is two or three captions of one image that do not contradict each other (`minigpt4.curate.describe`), in the form
asked for,
with an opening and a close of its kind.
"""

import json
import random
import re
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from talk import KINDS, fault

from minigpt4.curate.describe import describe

OPEN = {
    "story": ("Once upon a time, {}", "One day, {}", "It all began like this: {}", "On a bright morning, {}"),
    "advertisement": ("Imagine this: {}", "Picture this: {}", "Look at this moment: {}", "Ready for something new? Here {}"),
    "funny": (
        "This image is funny because {}",
        "What makes it amusing is that {}",
        "The joke is that {}",
        "People may laugh because {}",
    ),
    "next": ("Right now, {}", "At the moment {}"),
    "who": ("In this image {}", "Here we see that {}"),
    "advice": ("Here {}", "In this situation {}"),
}
CLOSE = {
    "story": (
        "For a while nothing else in the world mattered.",
        "It was a day that nobody who was there would forget.",
        "Then the sun went down, and it was time to go home.",
        "And from that day on, they came back every year.",
        "What came next was a surprise to everyone.",
        "They smiled, for it was the best part of the whole day.",
    ),
    "advertisement": (
        "Bring this feeling home today.",
        "Do not wait any longer: join us and enjoy every moment.",
        "Quality you can see, and joy you can feel.",
        "Made for people who love moments like this one.",
        "Come and see it for yourself. You will love it!",
    ),
    "funny": (
        "Nobody expects to see that on an ordinary day.",
        "It looks so serious and so silly at the same time.",
        "One can almost hear somebody laugh behind the camera.",
        "It is an ordinary moment that suddenly looks absurd.",
    ),
    "next": (
        "Next, they will probably go on for a while and then take a rest.",
        "Soon it may all be over, and everybody goes home.",
        "Next, somebody may come closer to see what is going on.",
    ),
    "who": (
        "People who enjoy moments like this one will like it.",
        "It is for everybody who likes to look at everyday life.",
        "Families and friends of the outdoors might like it best.",
    ),
    "advice": (
        "You should take your time, look around and be careful.",
        "It is best to keep a safe distance and to stay calm.",
        "You should enjoy the moment, and watch where you step.",
    ),
}
PEOPLE_WROTE = (
    "flickr8k/",
    "coco/",
    "food_titles1000/",
    "recipes_public_domain/",
    "openstax_alt/",
)  # captions, not class names
LAST_LINE = (
    "A moment caught, a memory to keep.",
    "And the quiet world keeps turning, soft and slow.",
    "So small a scene, and yet so full of light.",
    "Here time stands still, and all the heart is glad.",
    "A simple day, a song without a word.",
)


def lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not re.match(r"I\b|[A-Z]{2}", text) else text


def main() -> None:
    data, target = Path(sys.argv[1]), Path(sys.argv[2])
    made, kinds = [], {}
    for name in ("captions.train.jsonl", "world_captions.train.jsonl"):
        for line in (data / name).open(encoding="utf-8"):
            row = json.loads(line)
            image, captions = row["image"], row["answers"]
            if not image.startswith(PEOPLE_WROTE) or (name.startswith("captions") and zlib.crc32(image.encode()) % 3):
                continue
            rng = random.Random(f"compose {image}")
            told = describe(captions) or max(captions, key=len)
            sentences = re.split(r"(?<=[.!?]) ", told)[:3]
            for kind in rng.sample(["poem", "story", "advertisement", "funny"], 2) + rng.sample(["next", "who", "advice"], 1):
                if kind == "poem":
                    lines = [text.rstrip(".") for text in sorted(sentences, key=len)]
                    answer = ",\n".join([lines[0], *map(lower, lines[1:])]) + ".\n" + rng.choice(LAST_LINE)
                    if len(lines) == 1:
                        answer += "\n" + rng.choice([x for x in LAST_LINE if x not in answer])
                else:
                    answer = " ".join(
                        [rng.choice(OPEN[kind]).format(lower(sentences[0])), *sentences[1:], rng.choice(CLOSE[kind])]
                    )
                if fault(answer, captions) is None:
                    kinds[kind] = kinds.get(kind, 0) + 1
                    made.append({"image": image, "question": rng.choice(KINDS[kind][1]), "answer": answer})
    target.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    print(len(made), "answers", kinds)


if __name__ == "__main__":
    main()
