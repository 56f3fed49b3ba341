"""Makes the pocket model's training files out of human annotations of photographs.

    python recipes/pocket/annotations.py FROM TO

FROM has three folders, each with the pictures that its JSON Lines files name:

    flickr8k/captions.jsonl   {"image", "split", "captions": [5 texts]}
    flickr8k/entities.jsonl   the same captions with phrases, and boxes by entity (Flickr30k Entities):
                              {"image", "split", "captions": [{"caption", "phrases": [{"phrase", "id", "types", "start"}]}],
                               "boxes_xyxy_norm": {id: [[x1, y1, x2, y2]]}}
    coco/{vqa,vsr,persons,boxes80,captions}.jsonl   questions with ten answers, true or false statements, boxes, captions
    daquar/qa.jsonl           {"image", "qa": [{"question", "answer"}]}

TO receives rows of the project's own schema (docs/data.md), train and dev apart: dev is Flickr8k's own dev split, and of the
others every tenth picture. Pictures are named relative to FROM.
"""

import argparse
import json
import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from minigpt4.curate.describe import describe

Row = dict

TRUE_OR_FALSE = "Based on the image, is this statement true or false? "

COLOURS = "red blue green yellow black white brown orange purple pink gray grey tan blond blonde".split()
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}

# Words of one meaning: only words of different groups may contradict each other.
THINGS = (
    "dog puppy dogs puppies poodle greyhound terrier retriever hound",
    "cat kitten cats",
    "horse horses pony",
    "man men guy guys male gentleman biker surfer skier snowboarder climber skateboarder player person people",
    "woman women lady ladies female person people",
    "boy boys child children kid kids toddler baby person people",
    "girl girls child children kid kids toddler baby person people",
    "ball football basketball baseball soccer tennis",
    "bicycle bike bikes biker bmx cyclist",
    "motorcycle motorbike dirtbike",
    "car cars truck van vehicle vehicles suv",
    "boat kayak canoe boats raft",
    "snow snowy ski skiing skier snowboard snowboarder",
    "water ocean lake river sea pool wave waves beach",
    "grass grassy field lawn yard park",
    "skateboard skateboarder skateboarding",
    "frisbee frisbees disc",
    "hat cap helmet helmets",
    "bench seat",
    "tree trees forest woods",
    "mountain mountains cliff rock rocks",
    "street road sidewalk city",
    "bird birds duck",
    "umbrella umbrellas",
    "swing swings",
    "guitar guitars",
)
_GROUPS = [frozenset(group.split()) for group in THINGS]
_ASKED = [group.split()[0] for group in THINGS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    given.target.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Row]] = defaultdict(list)
    for name, row in (*_flickr(given.source), *_coco(given.source), *_daquar(given.source)):
        files[name].append(row)
    for name, rows in sorted(files.items()):
        path = given.target / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        print(f"{len(rows):7,} {path}")


# Flickr8k -----------------------------------------------------------------------------------------------------------


def _flickr(source: Path) -> Iterator[tuple[str, Row]]:
    entities = {row["image"]: row for row in _rows(source / "flickr8k/entities.jsonl")}
    for row in _rows(source / "flickr8k/captions.jsonl"):
        image, split = f"flickr8k/{row['image']}", row["split"]
        rng = random.Random(image)
        captions = [sentence(text) for text in row["captions"]]
        yield f"captions.{split}", {"image": image, "answers": captions}
        if (description := describe(captions)) is not None:
            yield f"describe.{split}", {"image": image, "answer": description}
        if image.removeprefix("flickr8k/") not in entities:
            continue
        known = entities[row["image"]]
        for made in (*_pointing(image, known), *_places(image, known, random.Random(f"{image} places"))):
            yield f"{made.pop('file')}.{split}", made
        for made in _questions(image, [text.lower() for text in captions], known, rng):
            yield f"questions.{split}", made


def _pointing(image: str, known: Row) -> Iterator[Row]:
    """Phrases with boxes, and captions with their phrases' boxes."""
    boxes = {key: [_ordered(box) for box in found] for key, found in known["boxes_xyxy_norm"].items()}
    seen = set()
    for caption in known["captions"]:
        grounded = []
        for phrase in caption["phrases"]:
            found = [box for box in boxes.get(phrase["id"], []) if box is not None]
            if not found:
                continue
            words = untokenised(phrase["phrase"])
            grounded.append({"phrase": words, "boxes": found[:4]})
            if (words.lower(), phrase["id"]) not in seen and "notvisual" not in phrase["types"]:
                seen.add((words.lower(), phrase["id"]))
                name = "refer" if len(found) == 1 else "several"
                yield {"file": name, "image": image, "phrase": _lower_first(words), "boxes": found[:6]}
        text = sentence(caption["caption"])
        if row := _grounded(image, text, grounded):
            yield row


def _places(image: str, known: Row, rng: random.Random) -> Iterator[Row]:
    """Each place of a picture once, under one of its names, and all people and dogs. Twice, with other names, so that a second
    pass over the pictures is not the first."""
    boxes = {key: [b for b in map(_ordered, found) if b is not None] for key, found in known["boxes_xyxy_norm"].items()}
    names: dict[str, dict[str, None]] = defaultdict(dict)
    kinds: dict[str, dict[str, None]] = {"people": {}, "dog": {}}
    for caption in known["captions"]:
        for phrase in caption["phrases"]:
            if not boxes.get(phrase["id"]) or "notvisual" in phrase["types"]:
                continue
            words = _lower_first(untokenised(phrase["phrase"]))
            names[phrase["id"]].setdefault(words)
            if "people" in phrase["types"]:
                kinds["people"].setdefault(phrase["id"])
            if re.search(r"\b(dogs?)$", words):
                kinds["dog"].setdefault(phrase["id"])
    for file in ("places", "places_again"):
        for key, known_as in names.items():
            if len(boxes[key]) == 1:
                yield _place(file, image, "refer", rng.choice(list(known_as)), boxes[key])
        for kind, keys in kinds.items():
            found = list({tuple(box): box for key in keys for box in boxes[key]}.values())
            if 0 < len(found) <= 4:
                yield _place(file, image, "detection", kind, found)


def _place(file: str, image: str, task: str, phrase: str, boxes: list[list[float]]) -> Row:
    largest_first = sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
    return {"file": file, "image": image, "task": task, "phrase": phrase, "boxes": largest_first}


def _grounded(image: str, text: str, phrases: list[Row]) -> Row | None:
    """A caption with its phrases in their places; None if one cannot be found in the tidied text."""
    done, placed = 0, []
    for phrase in phrases:
        start = text.lower().find(phrase["phrase"].lower(), done)
        if start < 0:
            return None
        done = start + len(phrase["phrase"])
        placed.append({"phrase": text[start:done], "start": start, "boxes": phrase["boxes"]})
    return {"file": "grounding", "image": image, "text": text, "phrases": placed} if len(placed) >= 2 else None


def _questions(image: str, captions: list[str], known: Row, rng: random.Random) -> Iterator[Row]:
    """Questions that several people's captions answer without contradicting each other."""
    words = [set(re.findall(r"[a-z]+", caption)) for caption in captions]
    said = Counter(word for caption in words for word in caption)
    everything = set(said)

    def row(question: str, answer: str) -> Row:
        return {"image": image, "question": question, "answer": answer, "task": "vqa"}

    present = [thing for thing, group in zip(_ASKED, _GROUPS, strict=True) if said[thing] >= 3]
    absent = [thing for thing, group in zip(_ASKED, _GROUPS, strict=True) if not group & everything]
    for thing in present[:2]:
        yield row(rng.choice(("Is there a {} in the picture?", "Is there a {}?", "Can you see a {}?")).format(thing), "yes")
    for thing in rng.sample(absent, min(len(present[:2]), len(absent))):
        yield row(rng.choice(("Is there a {} in the picture?", "Is there a {}?", "Can you see a {}?")).format(thing), "no")

    coloured: dict[str, Counter] = defaultdict(Counter)
    counted: dict[str, Counter] = defaultdict(Counter)
    for caption in known["captions"]:
        for phrase in caption["phrases"]:
            tokens = phrase["phrase"].lower().split()
            if len(tokens) >= 2 and tokens[-2] in COLOURS and not set(tokens[:-2]) & {"and", *COLOURS}:
                coloured[tokens[-1]][tokens[-2]] += 1
            if len(tokens) >= 2 and tokens[0] in NUMBERS and tokens[-1].endswith(("s", "men", "children", "people")):
                counted[tokens[-1]][str(NUMBERS[tokens[0]])] += 1
    for thing, colours in coloured.items():
        if len(colours) == 1 and sum(colours.values()) >= 2:
            yield row(f"What color {'are' if thing.endswith('s') else 'is'} the {thing}?", next(iter(colours)))
    for thing, numbers in counted.items():
        if len(numbers) == 1 and sum(numbers.values()) >= 2:
            yield row(f"How many {thing} are there?", next(iter(numbers)))
    doing = Counter(
        m[2] for c in captions if (m := re.search(r"\b(man|woman|boy|girl|dog|person|child) (?:is )?(\w+ing)\b", c))
    )
    who = Counter(m[1] for c in captions if (m := re.search(r"\b(man|woman|boy|girl|dog|person|child) (?:is )?(\w+ing)\b", c)))
    if doing and doing.most_common(1)[0][1] >= 2:
        yield row(f"What is the {who.most_common(1)[0][0]} doing?", doing.most_common(1)[0][0])
    for places, question in (
        (r"\b(?:in|through|on) the (snow|grass|water|sand|street|field|beach|pool|woods)\b", "Where is it?"),
    ):
        where = Counter(m[1] for c in captions if (m := re.search(places, c)))
        if where and where.most_common(1)[0][1] >= 2 and len(where) == 1:
            yield row(question, where.most_common(1)[0][0])


# COCO and DAQUAR ----------------------------------------------------------------------------------------------------


def _coco(source: Path) -> Iterator[tuple[str, Row]]:
    for row in _rows(source / "coco/vqa.jsonl"):
        image = f"coco/{row['image']}"
        for qa in row["qa"]:
            yield f"vqa.{_split(image)}", {"image": image, "question": qa["question"], "answers": qa["answers"], "task": "vqa"}
    for row in _rows(source / "coco/vsr.jsonl"):
        image = f"coco/{row['image']}"
        for fact in row["vsr"]:
            answer = "true" if fact["label"] else "false"
            made = {"image": image, "question": f"[vqa] {TRUE_OR_FALSE}{fact['statement']}", "answer": answer}
            yield f"vsr.{_split(image)}", made
    for name in ("boxes80", "persons"):
        for row in _rows(source / f"coco/{name}.jsonl"):
            image = f"coco/{row['image']}"
            places: dict[str, list] = defaultdict(list)
            for box in row["boxes"]:
                if (ordered := _ordered(box["bbox_xyxy_norm"])) is not None:
                    places[box["category"]].append(ordered)
            for category, boxes in places.items():
                if len(boxes) <= 6:
                    yield f"objects.{_split(image)}", {"image": image, "phrase": category, "boxes": boxes, "task": "detection"}
    for row in _rows(source / "coco/captions.jsonl"):
        image = f"coco/{row['image']}"
        captions = [sentence(text) for text in row["captions"]]
        yield f"coco_captions.{_split(image)}", {"image": image, "answers": captions}


def _daquar(source: Path) -> Iterator[tuple[str, Row]]:
    for row in _rows(source / "daquar/qa.jsonl"):
        image = f"daquar/{row['image']}"
        for question, answer in dict.fromkeys((qa["question"], qa["answer"]) for qa in row["qa"]):
            tidy = re.sub(r"\s+", " ", question).strip()
            made = {"image": image, "question": tidy, "answer": answer.replace("_", " "), "task": "vqa"}
            yield f"daquar.{_split(image)}", made


# text and boxes -----------------------------------------------------------------------------------------------------


def untokenised(text: str) -> str:
    """Text as people write it: no blanks before punctuation and endings."""
    text = re.sub(r"\s+", " ", text.strip())
    text = re.sub(r" (n't|'s|'re|'ll|'d|'ve|[.,!?;:)])", r"\1", text)
    return re.sub(r"([(]) ", r"\1", text.replace(" ''", '"').replace("`` ", '"'))


def sentence(text: str) -> str:
    """A caption as a sentence: a capital at the beginning, a period at the end."""
    tidy = untokenised(text).rstrip(" .,;!").replace('"', "")
    return tidy[:1].upper() + tidy[1:] + "."


def _lower_first(phrase: str) -> str:
    first = phrase.split()[0]
    return (
        first.lower() + phrase[len(first) :]
        if first.lower() in ("a", "an", "the", "two", "three", "some", "his", "her")
        else phrase
    )


def _ordered(box: list[float]) -> list[float] | None:
    """A box inside the picture, or None if nothing of it is left."""
    x1, y1, x2, y2 = (min(max(v, 0.0), 1.0) for v in box)
    return [x1, y1, x2, y2] if x2 - x1 > 0.01 and y2 - y1 > 0.01 else None


def _split(image: str) -> str:
    return "dev" if zlib.crc32(image.encode()) % 10 == 0 else "train"


def _rows(path: Path) -> Iterable[Row]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


if __name__ == "__main__":
    main()
