"""Makes training files about more of the world than people and dogs: class names, short captions, yes or no.

    python recipes/pocket/world.py FROM TO

FROM holds folders of photographs with `labels.jsonl` (image, class) or `captions.jsonl` (image, captions), as
`recipes/pocket/data.py` lists
them. TO receives, train and dev apart (a tenth, by the hash of the image's name):

    names.*            "What is this?", "What animal is this?" with a word or two as the answer
    yes_no.*           "Is there a cat in the picture?": as often no as yes; what is absent is another image's thing
    world_captions.*   captions for images that are not of people and dogs
"""

import json
import random
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

ANIMALS = set(
    "dog bird snake monkey fish lizard beetle spider insect butterfly salamander turtle crab cat ape wolf fox bear "
    "weasel shark frog lobster "
    "rabbit antelope stingray crocodile worm slug whale leopard dragonfly sheep lemur elephant rooster hen ostrich "
    "scorpion tick centipede "
    "echidna platypus wallaby koala wombat jellyfish snail bug dugong hyena cougar lynx jaguar lion tiger cheetah "
    "mongoose meerkat fly bee ant "
    "grasshopper cricket starfish hamster porcupine marmot beaver squirrel horse zebra pig hippopotamus ox bison "
    "goat camel llama otter skunk "
    "badger armadillo sloth panda".split()
) | {"wild dog", "sea urchin", "wild pig", "guinea pig", "sea lion", "water buffalo", "red panda"}
VEHICLES = set(
    "boat ship car train truck airplane bicycle bus taxi ambulance tram van jeep motorcycle submarine sailboat".split()
) | {"fire truck", "police van", "train car", "race car", "pickup truck", "old car", "school bus"}
FOODS = set(
    "bread dessert squash coffee burger pizza pasta dough meat pie apple oranges bananas broccoli strawberries "
    "burrito mushrooms "
    "artichoke pepper jackfruit".split()
) | {"glass of beer"}  # not a plate of food: it became the answer to every question about food
COARSE = {
    "Juice": "carton of juice",
    "Yoghurt": "yoghurt",
    "Milk": "carton of milk",
    "Apple": "apples",
    "Pepper": "peppers",
    "Pear": "pears",
    "Potato": "potatoes",
    "Tomato": "tomatoes",
    "Melon": "melons",
    "Avocado": "avocados",
    "Banana": "bananas",
    "Kiwi": "kiwis",
    "Lemon": "lemons",
    "Lime": "limes",
    "Mango": "mangos",
    "Nectarine": "nectarines",
    "Orange": "oranges",
    "Peach": "peaches",
    "Pineapple": "pineapples",
    "Plum": "plums",
    "Mushroom": "mushrooms",
    "Onion": "onions",
    "Red Grapefruit": "grapefruits",
    "Aubergine": "aubergines",
    "Leek": "leeks",
    "Cucumber": "cucumbers",
    "Zucchini": "zucchinis",
    "Satsumas": "satsumas",
}
DISHES = (
    # what food is called when it is asked for in a word or two; the first that is named wins
    "pizza burger sandwich sushi pasta spaghetti noodles ramen lasagna soup stew curry salad pancakes waffles cake "
    "cupcakes muffins donuts cookies pie tart pastry croissants bread toast bagel burrito taco tacos nachos "
    "dumplings omelette eggs steak ribs sausages bacon ham chicken turkey beef pork lamb meat salmon shrimp crab "
    "lobster fish rice beans fries potatoes cheese yogurt cereal oatmeal granola chocolate candy popcorn chips nuts "
    "almonds walnuts strawberries blueberries raspberries cherries grapes watermelon pineapple bananas apples "
    "oranges lemons berries fruits tomatoes carrots broccoli mushrooms peppers corn avocado cucumber onions garlic "
    "vegetables coffee tea smoothie juice beer wine cocktail milk honey jam pudding dessert"
).split()
DISHES_UNCOUNTED = set(
    "sushi spaghetti ramen lasagna soup stew curry toast bacon ham chicken turkey beef pork lamb salmon shrimp crab "
    "lobster fish rice cheese yogurt cereal oatmeal granola chocolate candy popcorn corn tea beer wine honey jam "
    "pudding".split()
) | {"ice cream"}
SAME_DISH = dict(
    pair.split("=")
    for pair in (
        "hamburger=burger; cheeseburger=burger; cookie=cookies; egg=eggs; omelet=omelette; doughnut=donuts; yoghurt=yogurt; "
        "waffle=waffles; pancake=pancakes; tomato=tomatoes; potato=potatoes; fruit=fruits; strawberry=strawberries; "
        "blueberry=blueberries; berry=berries; raspberry=raspberries; cherry=cherries; noodle=noodles; vegetable=vegetables"
    ).split("; ")
)
CLOTHES = {
    "dress": "dress",
    "hat": "hat",
    "longsleeve": "long-sleeved shirt",
    "outwear": "jacket",
    "pants": "pair of pants",
    "shirt": "shirt",
    "shoes": "pair of shoes",
    "shorts": "pair of shorts",
    "skirt": "skirt",
    "t-shirt": "t-shirt",
}
SCENES = {
    "beach": "beach",
    "elephant": "elephant",
    "flower": "flower",
    "people": "group of people",
    "horse": "horse",
    "food": "plate of food",
    "buildings and monuments": "building",
    "bus": "bus",
    "mountain landscape": "mountain",
}
IN_ROOMS = {
    # looked at, 48 of each: 48 kitchens have cabinets, about 38 an oven, 41 bathrooms a sink, all bedrooms a bed
    "kitchen": ["A kitchen with cabinets and an oven.", "A kitchen with cabinets and a sink."],
    "bathroom": ["A bathroom with a sink.", "A bathroom with a sink and a toilet."],
    "bedroom": ["A bedroom with a bed.", "A bedroom with a bed and a window."],
}
WHAT = ("What is this?", "What is in the picture?", "What is the main thing in this image?", "What does this show?")
IS_THERE = ("Is there {} in the picture?", "Is there {} in this image?", "Can you see {}?", "Do you see {} here?")
BY_KIND = {
    "animal": ("What animal is this?", "Which animal is in the picture?", "What kind of animal is this?"),
    "vehicle": ("What vehicle is this?", "What kind of vehicle is this?", "Which vehicle is in the picture?"),
    "food": ("What food is this?", "What kind of food is this?", "What can you eat here?"),
    "room": ("What room is this?", "Which room of a house is this?", "What kind of room is this?"),
    "clothes": ("What piece of clothing is this?", "What kind of clothing is this?"),
    "place": ("What place is this?", "What kind of place is this?", "Where was this taken?"),
    "thing": ("What object is this?", "What thing is this?"),
}
# No "A photo of", "close up", no "in the middle": answers to everything began so.
PLAIN, PLAIN_MANY = ("{}.", "There is {}."), ("{}.", "There are {}.")


def article(name: str, kind: str = "") -> str:
    """A name as it is said of one thing: "a cat", "soup"; an animal counts even where it is a dish, too."""
    if kind == "animal" and name in DISHES_UNCOUNTED:
        return f"a {name}"
    if name.startswith(("pair", "plate", "group", "carton", "glass")):
        return f"a {name}"
    last = name.split()[-1]
    if (last.endswith("s") and not last.endswith(("ss", "us")) and name not in ("bus", "tennis")) or name in (
        *DISHES_UNCOUNTED,
        "bread",
        "yoghurt",
        "food",
        "pasta",
        "coffee",
        "meat",
        "dough",
        "garlic",
        "ginger",
        "asparagus",
        "cabbage",
        "juice",
        "milk",
        "broccoli",
    ):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def kind_of(name: str) -> str:
    return "animal" if name in ANIMALS else "vehicle" if name in VEHICLES else "food" if name in FOODS else "thing"


def dish(texts: list[str]) -> str | None:
    """What food is called in a word, if one of the known words is said of it."""
    for text in texts:
        words = [SAME_DISH.get(word, word) for word in re.findall(r"[a-z]+", text.lower())]
        words = [word if word in DISHES else f"{word}s" if f"{word}s" in DISHES else word for word in words]
        if "ice cream" in text.lower() or "hot dog" in text.lower():
            return "ice cream" if "ice cream" in text.lower() else "hot dog"
        if found := [name for name in DISHES if name in words]:
            return found[0]
    return None


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def rows(path: Path):
    return map(json.loads, path.open(encoding="utf-8")) if path.exists() else iter(())


def is_dev(image: str) -> bool:
    return zlib.crc32(image.encode()) % 10 == 0


def named(source: Path):
    """(image, name, kind) for each image that has a class."""
    for folder in ("imagenet_sample1000", "nips2017_openphotos1000"):
        for row in rows(source / folder / "labels.jsonl"):
            name = row["basic"] if row.get("basic_checked") else row["class"].lower()
            yield f"{folder}/{row['image']}", name, kind_of(name)
    for row in rows(source / "cats_dogs/labels.jsonl"):
        yield f"cats_dogs/{row['image']}", row["class"], "animal"
    for row in rows(source / "houses_rooms/labels.jsonl"):
        house = row["class"].startswith("house")
        yield f"houses_rooms/{row['image']}", "house" if house else row["class"], "place" if house else "room"
    for row in rows(source / "grocery_store/labels.jsonl"):
        name, image = COARSE.get(row["coarse"], row["coarse"].lower()), f"grocery_store/{row['image']}"
        if zlib.crc32(image.encode()) % 8 < (1 if re.search("carton|yoghurt|soy|cream|milk", name) else 4):
            yield image, name, "food"  # else "a carton of milk" becomes the answer to every question about food
    for row in rows(source / "clothing_small/labels.jsonl"):
        yield f"clothing_small/{row['image']}", CLOTHES[row["class"]], "clothes"
    for row in rows(source / "corel_scenes/labels.jsonl"):
        name = SCENES[row["class"]]
        kind = {"beach": "place", "mountain": "place"}.get(name) or kind_of(name)
        yield f"corel_scenes/{row['image']}", name, kind
    for row in rows(source / "camvid_street/labels.jsonl"):
        yield f"camvid_street/{row['image']}", "street", "place"
    for row in rows(source / "voc2007_boxes/labels.jsonl"):
        counts = {name: n for name, n in row["counts"].items() if name != "person"}
        if len(counts) == 1:
            name = next(iter(counts))
            yield f"voc2007_boxes/{row['image']}", name, kind_of(name)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    out: dict[str, list] = {}

    def put(file: str, row: dict) -> None:
        out.setdefault(f"{file}.{'dev' if is_dev(row['image']) else 'train'}", []).append(row)

    everything = list(named(source))
    common = Counter(name for _, name, _ in everything)
    frequent = [name for name, n in common.items() if n >= 4]
    for image, name, kind in everything:
        rng = random.Random(image)
        a = article(name, kind)
        put("names", {"image": image, "question": rng.choice(BY_KIND[kind]), "answer": capital(a) + "."})
        put("names", {"image": image, "question": rng.choice(WHAT), "answer": capital(a) + "."})
        put("names_vqa", {"image": image, "question": rng.choice(BY_KIND[kind] + WHAT[:1]), "answer": name, "task": "vqa"})
        others = [
            n for n in frequent if n != name and kind_of(n) != "thing" and not {n, name} <= {"bus", "car", "street", "van"}
        ]
        absent = [(rng.choice(others), "no")] if others else []
        for thing, answer in ((name, "yes"), *absent):
            question = rng.choice(IS_THERE).format(article(thing))
            put("yes_no", {"image": image, "question": question, "answer": answer, "task": "vqa"})
            put(
                "yes_no",
                {
                    "image": image,
                    "question": question,
                    "answer": f"Yes, there is {article(thing)}." if answer == "yes" else f"No, I see no {thing}, but {a}.",
                },
            )
        many = a == name and name.endswith("s") and name not in DISHES_UNCOUNTED
        captions = [capital(text.format(a)) for text in (PLAIN_MANY if many else PLAIN)]
        if kind == "room":
            captions = IN_ROOMS.get(name, [f"A {name} in a house."])
        put("world_captions", {"image": image, "answers": captions, "extra": {"kind": kind}})
    for row in rows(source / "camvid_street/labels.jsonl"):
        things = [t for t in row["objects"] if t in ("building", "tree", "car", "sign", "bicyclist", "pedestrian", "fence")]
        text = (
            "A street seen from a car, with " + ", ".join(f"{article(t)}" for t in things[:-1]) + f" and {article(things[-1])}."
        )
        put("world_captions", {"image": f"camvid_street/{row['image']}", "answers": [text], "extra": {"kind": "place"}})
    for folder, kind in (
        ("food_titles1000", "food"),
        ("recipes_public_domain", "food"),
        ("openstax_alt", ""),
        ("coco", "coco"),
    ):
        for row in rows(source / folder / "captions.jsonl"):
            captions = [
                capital(c.strip(" '.")) + "." for c in dict.fromkeys(row["captions"]) if len(c.split()) > 1 or kind == "food"
            ]
            captions = [c for c in captions if c.isascii() and len(c.split()) <= 30]
            if captions:
                image = f"{folder}/{row['image']}"
                put("world_captions", {"image": image, "answers": captions, "extra": {"kind": kind}})
                if kind == "food" and (name := dish([*(row.get("is") or ())[:2], *row["captions"]])):
                    for question in random.Random(image).sample(BY_KIND["food"], 2):
                        put("names", {"image": image, "question": question, "answer": capital(article(name)) + "."})
                    put("names_vqa", {"image": image, "question": BY_KIND["food"][0], "answer": name, "task": "vqa"})
    for name, made in sorted(out.items()):
        (target / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
        print(f"{len(made):7,} {name}")


if __name__ == "__main__":
    main()
