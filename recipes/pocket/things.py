"""Captions, names and yes-or-no questions for COCO's photographs that nobody captioned, out of what is known of them.

    python recipes/pocket/things.py FROM data/pocket

Known are: things that questions about an image take for granted ("What color is the cat?") or that their answers name, things
in true or false statements and in boxes, and what the vision encoder's classifier is sure of (`seen.jsonl` of `seen.py`). Rows
are added to those of `world.py`, which makes its files anew: world_captions, names, names_vqa and yes_no.
"""

import json
import random
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from hold import held_out
from world import ANIMALS, BY_KIND, FOODS, IS_THERE, VEHICLES, WHAT, article, capital, is_dev


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split("; "))


NAMES = {
    # what is said -> what it is called; plurals are found by rule
    **{
        name: name
        for name in (
            "bicycle car motorcycle airplane bus train truck boat bench bird cat dog horse sheep cow elephant bear zebra "
            "giraffe backpack umbrella handbag tie suitcase frisbee skateboard surfboard bottle cup fork knife spoon bowl "
            "banana apple sandwich orange broccoli carrot pizza donut cake chair couch bed table toilet laptop keyboard "
            "microwave oven toaster sink refrigerator book clock vase scissors toothbrush tree flower fence kite snowboard "
            "sign window mirror plate glass lamp rug pillow bridge building tower statue beach ocean snow street bathtub "
            "shower towel door desk house duck goat camel lion tiger monkey goose chicken egg salad soup bread strawberry "
            "tomato potato mushroom tractor van taxi helicopter tent flag basket box hat helmet bag guitar piano candle "
            "pumpkin bird kitchen bathroom bedroom field mountain river lake pigeon parrot owl penguin squirrel rabbit frog "
            "butterfly turtle fish".split()
        )
    },
    **_pairs(
        "plane=airplane; jet=airplane; aeroplane=airplane; bike=bicycle; motorbike=motorcycle; sofa=couch; doughnut=donut; "
        "hotdog=hot dog; hot dog=hot dog; fridge=refrigerator; television=television; tv=television; cell phone=phone; "
        "cellphone=phone; phone=phone; traffic light=traffic light; stop sign=stop sign; fire hydrant=fire hydrant; "
        "hydrant=fire hydrant; parking meter=parking meter; teddy bear=teddy bear; stuffed animal=teddy bear; baseball "
        "bat=baseball bat; tennis racket=tennis racket; racket=tennis racket; racquet=tennis racket; ski=pair of skis; "
        "skis=pair of skis; surf board=surfboard; skate board=skateboard; wine glass=glass; dining table=table; potted "
        "plant=plant; plant=plant; computer=computer; monitor=computer screen; mouse=mouse; remote=remote control; "
        "kitten=cat; puppy=dog; cattle=cow; bull=cow; calf=cow; lamb=sheep; ship=boat; sailboat=boat; canoe=boat; "
        "locomotive=train; man=man; woman=woman; boy=boy; girl=girl; child=child; kid=child; baby=baby; lady=woman; "
        "guy=man; person=person; people=group of people; men=group of people; women=group of people; waves=ocean; "
        "wave=ocean"
    ),
}
SEEN = _pairs(
    # the classifier's names that are called otherwise, and those that are taken as they are
    "tram=train; train car=train; school bus=bus; pickup truck=truck; van=van; race car=car; old car=car; jeep=car; "
    "motor scooter=motorcycle; sofa=couch; computer screen=computer screen; plate of food=plate of food; "
    "bananas=bananas; oranges=oranges; strawberries=strawberries; hot dog=hot dog; burger=burger; street sign=sign; "
    "traffic light=traffic light; parking meter=parking meter; teddy bear=teddy bear; remote control=remote control; "
    "plant in a pot=plant; sailboat=boat; ship=boat; apple=apple; ox=cow; wild pig=pig; computer mouse=mouse; tennis "
    "ball=tennis ball; soccer ball=soccer ball"
)
PEOPLE = {"man", "woman", "boy", "girl", "child", "baby", "person", "group of people"}
UNSURE = PEOPLE | set(
    "chair table car tree sign building window plant glass bottle cup bowl plate street field book door house box bag "
    "fence flower computer hat lamp desk pillow".split()
)
"""Never said to be absent unless somebody answered so: photographs have them unnoticed."""
FOODS_TOO = (
    FOODS
    | set("banana sandwich orange carrot donut cake egg salad soup strawberry tomato potato mushroom".split())
    | {"hot dog"}
)
VEHICLES_TOO = VEHICLES | {"tractor", "helicopter"}
ANIMALS_TOO = ANIMALS | set("cow giraffe duck goose chicken pigeon parrot owl penguin".split())
ROOMS = {"kitchen", "bathroom", "bedroom"}
WHERE = {
    **{room: f"in a {room}" for room in sorted(ROOMS)},
    **_pairs(
        "street=on a street; beach=on a beach; field=in a field; snow=in the snow; ocean=in the ocean; river=near a river; "
        "lake=on a lake; mountain=near a mountain"
    ),
}
"""Places, as they are said of things that are there."""
MANY = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "people",
    "sheep": "sheep",
    "goose": "geese",
    "knife": "knives",
}
COUNTS = {"2": "two", "3": "three", "4": "four", "5": "five"}
NOTHING = ("no", "none", "nothing", "0")
RELATIONS = (
    "on|in|under|behind|next to|in front of|near|beneath|on top of|inside|beside|above|at the edge of|surrounding|sitting on"
)

DOES = re.compile(
    r"what (?:is|are) the (man|woman|boy|girl|person|child|baby|dog|cat|bear|bird|horse|\w+s|people) "
    r"(\w+ing(?: on| in| at| with| behind| through)?)"
)


def plural(name: str) -> str:
    if name in MANY:
        return MANY[name]
    if name.endswith(("ss", "s")) and name not in ("bus", "glass"):
        return name
    return (
        name + "es"
        if name.endswith(("s", "sh", "ch", "x"))
        else name[:-1] + "ies"
        if re.search(r"[^aeiou]y$", name)
        else name + "s"
    )


FORMS = {
    **NAMES,
    **{plural(said): name for said, name in NAMES.items() if said not in ("people", "men", "women", "skis", "waves")},
}
PATTERN = re.compile(rf"\b({'|'.join(sorted(map(re.escape, FORMS), key=len, reverse=True))})\b")


def things_in(text: str) -> list[str]:
    return [FORMS[found] for found in PATTERN.findall(text.lower())]


class Image:
    """What is known of one image: things with how often each is vouched for, what is absent, and captions."""

    def __init__(self) -> None:
        self.things: Counter = Counter()
        self.counts: dict[str, str] = {}
        self.absent: set[str] = set()
        self.captions: list[str] = []

    def question(self, question: str, answers: list[str]) -> None:
        text = question.lower().rstrip("? ")
        answer, agreed = Counter(answers).most_common(1)[0]
        answer = answer.lower().strip(". ")
        if re.match(r"(is|are) there|(do|can) you see|any ", text):
            if agreed >= 7:
                if answer == "yes":
                    self.things.update(things_in(text))
                elif answer == "no":
                    self.absent.update(things_in(text))
            return
        if answer in ("yes", "no"):
            taken = re.match(r"(?:is|are|does|do|has|have|was) (?:the|this|these|those) ((?:\w+ ){0,2}?\w+)", text)
            self.things.update(things_in(text) if answer == "yes" and agreed >= 7 else things_in(taken[1])[:1] if taken else ())
            return
        if number := re.match(r"how many (.+?)(?: (?:are|is|in|on|do|can|have|has|does)\b|$)", text):
            found = things_in(number[1])
            if answer in NOTHING:
                self.absent.update(found)
            elif found and agreed >= 4 and answer.isdigit():
                self.things.update(found)
                if number[1] in FORMS and answer in COUNTS:
                    self.counts[found[0]] = COUNTS[answer]
            return
        self.things.update(things_in(text))
        if answer in NOTHING or agreed < 4:
            return
        self.things.update(things_in(answer))
        self._caption(text, answer)

    def _caption(self, text: str, answer: str) -> None:
        """A caption out of a question and its answer, where a rule knows how."""
        an = (
            answer
            if re.match(r"(a|an|the|his|her|two|three) ", answer) or answer in ("water", "snow", "grass")
            else article(answer)
        )
        if found := re.fullmatch(r"what colou?rs? (?:is|are) the (\w+)", text):
            if found[1] in FORMS and len(answer.split()) <= 3:
                is_one = FORMS[found[1]] == found[1]
                self.captions.append(f"{article(answer + ' ' + found[1]) if is_one else answer + ' ' + found[1]}")
        elif found := DOES.fullmatch(text):
            if found[2] not in ("doing", "feeling", "thinking"):
                self.captions.append(f"{who(found[1])} {found[2]} {an}")
            elif found[2] == "doing" and answer.split()[0].endswith("ing"):
                self.captions.append(f"{who(found[1])} {answer}")
        elif found := re.fullmatch(r"what (?:is|are) (on|in|behind|under|next to|in front of) the (\w+)", text):
            the = "the" if found[2] in ("water", "snow", "grass", "sand", "ground", "air", "sky", "ocean") else "a"
            self.captions.append(f"{an} {found[1]} {the} {found[2]}")
        elif found := re.fullmatch(r"where (?:is|are) the (\w+)(?: \w+ing)?", text):
            where = answer if re.match(r"(in|on|at|under|behind|next|near) ", answer) else ""
            if where:
                where = re.sub(r"^(in|on|at|under|behind|near) (?!the|a )", r"\1 the ", where)
                self.captions.append(f"{who(found[1])} {where}")
        elif re.match(r"what (sport|game)", text):
            self.captions.append(f"a person {'playing ' if not answer.endswith('ing') else ''}{answer}")
        elif re.match(r"what room", text) and answer not in ROOMS:
            self.captions.append(f"{an} with furniture")

    def named(self, most: int = 3) -> list[str]:
        """Things to be named, the surest first; people last, and once."""
        ranked = [name for name, _ in self.things.most_common() if name not in self.absent]
        rest = [name for name in ranked if name not in PEOPLE]
        whole = [name for name in rest if not any(name != other and name in other for other in rest)]
        someone = [name for name in ranked if name in PEOPLE]
        specific = [name for name in someone if name not in ("person", "group of people")] or someone
        return whole[:most] + specific[:1]


def who(name: str) -> str:
    return name if name == "people" or (name.endswith("s") and name not in ("bus",)) else article(name)


def told(name: str, counts: dict[str, str]) -> str:
    return f"{counts[name]} {plural(name)}" if name in counts else article(name)


def listed(names: list[str], counts: dict[str, str]) -> str:
    said = [told(name, counts) for name in names]
    return said[0] if len(said) == 1 else ", ".join(said[:-1]) + f" and {said[-1]}"


def all_of(someone: list[str], things: list[str], counts: dict[str, str]) -> str:
    """What there is in one phrase: "a man with a laptop in a kitchen"."""
    places, rest = [name for name in things if name in WHERE], [name for name in things if name not in WHERE]
    if places and not someone and (places[0] in ROOMS or not rest):
        room = article(places[0]) if places[0] not in ("snow", "ocean") else f"the {places[0]}"
        return f"{room} with {listed(rest, counts)}" if rest else f"a view of {room}"
    said = f"{listed(someone, counts)} with {listed(rest, counts)}" if someone and rest else listed(someone or rest, counts)
    return f"{said} {WHERE[places[0]]}" if places else said


def kind_of(name: str) -> str | None:
    kinds = (("animal", ANIMALS_TOO), ("vehicle", VEHICLES_TOO), ("food", FOODS_TOO), ("room", ROOMS))
    return next((kind for kind, names in kinds if name in names), None)


def gathered(source: Path, data: Path) -> dict[str, Image]:
    images: dict[str, Image] = defaultdict(Image)

    def rows(path: Path):
        return map(json.loads, path.open(encoding="utf-8")) if path.exists() else ()

    for row in rows(source / "coco/vqa.jsonl"):
        for qa in row["qa"]:
            images[f"coco/{row['image']}"].question(qa["question"], qa["answers"])
    for row in rows(source / "coco/vsr.jsonl"):
        image = images[f"coco/{row['image']}"]
        for fact in row["vsr"]:
            image.things.update(dict.fromkeys(things_in(fact["statement"]), 2))
            if fact["label"] and re.search(rf"\bis ({RELATIONS}) the\b", fact["statement"]):
                image.captions.append(re.sub(r"\b[Tt]he (\w+)", lambda m: who(m[1]), fact["statement"].rstrip(".")).lower())
    for name, weight in (("boxes80", 3), ("persons", 1)):
        for row in rows(source / f"coco/{name}.jsonl"):
            sizes: dict[str, float] = defaultdict(float)
            for box in row["boxes"]:
                x1, y1, x2, y2 = box["bbox_xyxy_norm"]
                sizes[box["category"]] += (x2 - x1) * (y2 - y1)
            for category, size in sizes.items():
                if size > 0.02 and category in FORMS:
                    images[f"coco/{row['image']}"].things[FORMS[category]] += weight
    for row in rows(data / "seen.jsonl"):
        for name, share in row["names"]:
            if (name in SEEN or name in FORMS) and share >= (0.7 if name == "dog" else 0.45):
                images[row["image"]].things[SEEN.get(name) or FORMS[name]] += 2
    return images


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, data = Path(sys.argv[1]), Path(sys.argv[2])
    images = gathered(source, data)
    captioned = {json.loads(line)["image"] for line in (data / "coco_captions.train.jsonl").open(encoding="utf-8")}
    held = held_out(source)
    out: dict[str, list] = defaultdict(list)
    often = Counter(name for image in images.values() for name in image.named())
    common = [name for name, n in often.items() if n >= 8 and name not in UNSURE]
    for path, image in sorted(images.items()):
        if is_dev(path) or path in held:
            continue
        rng = random.Random(f"things {path}")
        names = image.named()
        if not names or set(names) <= PEOPLE:
            continue
        for kind in ("animal", "vehicle", "food", "room"):
            of_kind = [name for name in names if kind_of(name) == kind]
            if len(of_kind) == 1:
                name = of_kind[0]
                question = rng.choice(BY_KIND[kind])
                out["names"].append({"image": path, "question": question, "answer": capital(told(name, image.counts)) + "."})
                out["names_vqa"].append({"image": path, "question": rng.choice(BY_KIND[kind]), "answer": name, "task": "vqa"})
        out["names"].append({"image": path, "question": rng.choice(WHAT), "answer": capital(listed(names, image.counts)) + "."})
        others = [name for name in rng.sample(common, min(12, len(common))) if name not in image.things]
        absent = [*sorted(image.absent), *others][:1]
        for name, answer in ((names[0], "yes"), *((name, "no") for name in absent)):
            question = rng.choice(IS_THERE).format(article(name))
            out["yes_no"].append({"image": path, "question": question, "answer": answer, "task": "vqa"})
            long = (
                f"Yes, there is {article(name)}."
                if answer == "yes"
                else f"No, I see no {name}, but {listed(names, image.counts)}."
            )
            out["yes_no"].append({"image": path, "question": question, "answer": long})
        if path in captioned:
            continue
        rest = [name for name in names if name not in PEOPLE]
        someone = [name for name in names if name in PEOPLE]
        # What names one thing of several is a caption only where it says something of it.
        texts = [text for text in image.captions if len(text.split()) >= 3] + [all_of(someone, rest, image.counts)]
        texts = list(dict.fromkeys(texts))
        captions = [capital(text) + "." for text in texts if 2 <= len(text.split()) <= 16]
        if captions and not set(names) <= UNSURE:
            out["world_captions"].append({"image": path, "answers": captions[:4], "extra": {"kind": "coco"}})
    for name, rows in sorted(out.items()):
        path = data / f"{name}.train.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(f"{len(rows):7,} rows for {name}")


if __name__ == "__main__":
    main()
