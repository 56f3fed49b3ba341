"""Composes answers to free requests by rules, out of what people said, where the small writer of `talk.py` writes badly.

    python recipes/pocket/compose.py data/pocket data/pocket/composed.jsonl

Each answer is two or three captions of one image that do not contradict each other (`minigpt4.curate.describe`), in the form
asked for, with an opening and a close that fit what the image is of. `conversations.jsonl` beside it has a request and a
follow-up of two turns each.
"""

import json
import random
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from talk import KINDS, fault
from things import kind_of, things_in

from minigpt4.curate.describe import describe

OPEN = {
    "story": (
        "Once upon a time, {}",
        "One day, {}",
        "It was a quiet morning, and {}",
        "On a bright afternoon, {}",
        "Long ago, {}",
    ),
    "advertisement": ("Imagine this: {}", "Picture this: {}", "Look at this: {}", "Here {}", "What a moment: {}"),
    "funny": (
        "This image is funny because {}",
        "What makes it amusing is that {}",
        "The joke is that {}",
        "It is funny that {}",
    ),
    "next": ("Right now, {}", "At the moment {}", "In this image {}"),
    "who": ("In this image {}", "Here {}", "We see that {}"),
    "advice": ("Here {}", "In this situation {}", "We see that {}"),
    "mood": ("In this image {}", "Here {}"),
}
CLOSE: dict[str, dict[str, tuple[str, ...]]] = {
    "story": {
        "": (
            "For a while nothing else in the world mattered.",
            "Nobody knew yet that this day would change everything.",
            "Then the sun went down, and it was time to go home.",
            "When it was over, they told everybody about it.",
            "Years later, people still talked about that day.",
        ),
        "animal": (
            "Then it heard a strange sound and looked up.",
            "It had never been so far from home, but it was not afraid.",
            "In the evening it lay down and dreamed of the next adventure.",
        ),
        "food": ("Everybody sat down, and soon nothing was left.", "The cook smiled, for it was the best meal of the year."),
        "vehicle": ("The journey had only begun.", "Nobody on board knew where they would arrive."),
        "person": (
            "It took courage, but in the end it was worth it.",
            "A friend called from far away, and they laughed together.",
        ),
        "room": ("Somebody had just left, and the light was still on.", "Behind the door, a family was waiting."),
    },
    "advertisement": {
        "": (
            "Come and see it for yourself. You will love it!",
            "Bring this feeling home today.",
            "Do not wait any longer, and enjoy it now!",
        ),
        "animal": ("Give your best friend what it deserves.", "For everyone who loves animals: visit us today!"),
        "food": ("Fresh, simple and delicious: taste it today!", "Made with love and the best ingredients. Enjoy your meal!"),
        "vehicle": ("Get on board, and go where you have never been.", "Reliable, comfortable and ready when you are."),
        "person": ("Be active, be free, be yourself.", "Join us, and make every moment count."),
        "room": ("Feel at home from the first day.", "Comfort and style for the way you live."),
    },
    "funny": {
        "": ("Nobody expects to see that on an ordinary day.", "It looks serious and silly at the same time."),
        "animal": ("It looks as if it were thinking like a person.", "The animal seems to have plans of its own."),
        "food": ("One can almost hear a hungry stomach.", "It looks too good to be only looked at."),
        "vehicle": ("It looks as if it had a will of its own.", "Nobody would expect to wait for it there."),
        "person": ("The look of it says more than a thousand words.", "It seems that nobody told them about the camera."),
        "room": ("It is so tidy that nobody seems to live there.", "One wonders who has to clean it."),
    },
    "next": {
        "": ("Next, somebody may come closer to see what is going on.", "Soon it may all be over, and everybody goes home."),
        "animal": ("Next, it may move on and look for food.", "Soon it may get tired and lie down."),
        "food": ("Next, somebody will probably eat it.", "Soon the plate will be empty."),
        "vehicle": ("Next, it will probably go on and leave the place.", "Soon it may stop and let people get off."),
        "person": ("Next, they will probably go on for a while and then take a rest.", "Soon they may stop and talk about it."),
        "room": ("Next, somebody may come in and use it.", "Soon the lights may go out for the night."),
    },
    "who": {
        "": ("People who like to look at everyday life will enjoy it.", "It is for everybody who is curious about the world."),
        "animal": ("People who love animals will like it, and so will children.", "Friends of nature will enjoy it most."),
        "food": ("Everybody who is hungry or loves to cook will like it.", "People who enjoy good food will love it."),
        "vehicle": (
            "Travellers and people who like machines will enjoy it.",
            "Children who love to watch traffic will like it.",
        ),
        "person": ("People who like to be active will enjoy it.", "Friends and families will like it, for it is full of life."),
        "room": ("People who look for a home or like design will enjoy it.", "Somebody who plans a new room might like it."),
    },
    "advice": {
        "": (
            "You should take your time, look around and be careful.",
            "It is best to stay calm and to ask if you are not sure.",
        ),
        "animal": ("You should keep a safe distance and move slowly.", "Be gentle, and do not feed it without asking."),
        "food": (
            "You should wash your hands, and then enjoy it while it is fresh.",
            "Try a small piece first, and share it with a friend.",
        ),
        "vehicle": ("You should look both ways and keep away from moving traffic.", "Wait until it stops, and then get on."),
        "person": (
            "You should watch your step and wear what protects you.",
            "Join in if you like, but be careful not to get hurt.",
        ),
        "room": ("You should look around and make yourself at home.", "Keep it clean, and leave it as you found it."),
    },
    "mood": {
        "": ("The mood is calm and natural.", "It feels like an ordinary day, quiet and honest."),
        "animal": ("The mood is peaceful, and close to nature.", "It feels gentle and alive."),
        "food": ("It feels warm and inviting.", "The mood is cozy, and it makes one hungry."),
        "vehicle": ("It feels busy, and full of movement.", "There is a feeling of travel in it."),
        "person": ("The mood is lively and full of energy.", "It feels open and free."),
        "room": ("It feels quiet and comfortable.", "The mood is homely and still."),
    },
}
LAST_LINE = {
    "": (
        "A moment caught, a memory to keep.",
        "So small a scene, and yet so full of light.",
        "A simple day, a song without a word.",
    ),
    "animal": ("A gentle heart that beats so wild and free.", "It looks at us, and does not say a word."),
    "food": ("A little feast to warm the heart and home.", "So sweet the taste, so short the time it stays."),
    "vehicle": ("It waits to carry us to lands unknown.", "The road is long, and home is far away."),
    "person": ("The heart beats fast, the day is young and bright.", "A smile, a breath, a moment in the sun."),
    "room": ("The walls are still, and keep what we have said.", "A quiet place where one can rest and dream."),
}
OF_THINGS: dict[str, dict[str, str]] = {
    # what captions speak of -> the close of an answer that fits it, so that the close is read from the image, too
    r"snow\w*|skis?|skiing|skier|sled\w*": {
        "story": "The snow kept falling, and soon their tracks were gone.",
        "poem": "The snow is white, and still, and everywhere.",
        "advertisement": "The snow is fresh and the mountain is waiting for you!",
        "funny": "The snow seems to be the only one that stays cool.",
    },
    r"beach|ocean|sea|waves?|surf\w*|shore": {
        "story": "The waves came and went, and nobody wanted to leave the beach.",
        "poem": "The waves come in, and take our words away.",
        "advertisement": "Leave your worries at home, for the ocean is calling!",
        "funny": "The waves do not seem to take it seriously.",
    },
    r"pool|lake|river|water|swim\w*": {
        "story": "The water was cold, but nobody wanted to go home.",
        "poem": "The water sings, and carries all away.",
        "advertisement": "Jump in: the water has never been better!",
        "funny": "The water does not look half as brave as that.",
    },
    r"soccer|football|baseball|tennis|basketball|volleyball|frisbee|ball": {
        "story": "In the end nobody could say who had won the game, and nobody minded.",
        "poem": "The game is on, and every heart beats fast.",
        "advertisement": "Get into the game, and play as you have never played!",
        "funny": "It looks as if the game had rules that nobody knows.",
    },
    r"dogs?|puppy": {
        "story": "The dog had never been happier, and it slept all the way home.",
        "poem": "The dog knows well what makes a perfect day.",
        "advertisement": "Because your dog deserves the best day of the week!",
        "funny": "The dog looks as if all of this had been its own idea.",
    },
    r"cats?|kitten": {
        "story": "The cat fell asleep and dreamed of the next hunt.",
        "poem": "The cat is still, and rules the world in dreams.",
        "advertisement": "Because your cat knows what is good!",
        "funny": "The cat looks as if it owned the place.",
    },
    r"horses?": {
        "story": "The horse knew the way, and it did not hurry.",
        "poem": "The horse runs on, and with it goes the wind.",
        "advertisement": "Get on, and see the world from a horse!",
        "funny": "The horse seems to wonder who is in charge.",
    },
    r"birds?|ducks?|geese": {
        "story": "Then the birds rose into the air, and it was quiet again.",
        "poem": "The birds are free, and do not ask us why.",
        "advertisement": "Come out and listen to the birds!",
        "funny": "The birds look as if they had a meeting.",
    },
    r"elephants?|giraffes?|zebras?|bears?|cows?|sheep|goats?|lions?|tigers?": {
        "story": "The animal raised its head, listened, and went on eating.",
        "poem": "So wild, so calm, it takes its time to live.",
        "advertisement": "Come closer than you have ever been to wild animals!",
        "funny": "The animal looks as if it were on holiday.",
    },
    r"bicycles?|bikes?|motorcycles?|cyclists?": {
        "story": "The road went on, and so did the ride.",
        "poem": "Two wheels, the wind, and nowhere to be soon.",
        "advertisement": "Two wheels are all you need: ride today!",
        "funny": "It looks as if the wheels had plans of their own.",
    },
    r"trains?|bus|buses|trucks?|cars?|traffic": {
        "story": "Then it drove on, and the road was empty again.",
        "poem": "The road is long, and home is far away.",
        "advertisement": "Get in, and be there before you know it!",
        "funny": "It looks as if it had lost its way.",
    },
    r"airplanes?|planes?|jets?|airport": {
        "story": "High above the clouds nobody thought of the ground any more.",
        "poem": "Above the clouds, the sky has room for all.",
        "advertisement": "Fly with us: the sky is open!",
        "funny": "It looks too heavy for the sky, and flies in spite of it.",
    },
    r"boats?|ships?|kayaks?|canoes?": {
        "story": "The boat turned slowly and went home with the evening wind.",
        "poem": "The boat goes out to where the sky begins.",
        "advertisement": "Come on board, and let the shore stay behind!",
        "funny": "The boat seems to know more than its captain.",
    },
    r"rocks?|cliff|mountains?|climb\w*|hills?": {
        "story": "From the top one could see everything, and it was worth the way.",
        "poem": "The stone is old, and has no need of words.",
        "advertisement": "Climb higher than you have ever been!",
        "funny": "The mountain does not seem to be impressed.",
    },
    r"pizza|cake|sandwich|bread|salad|fruits?|vegetables|plate|meal|food|soup|meat|dessert|bananas?|apples?|donuts?": {
        "story": "Everybody sat down to eat, and soon the plate was empty.",
        "poem": "A little feast to warm the heart and home.",
        "advertisement": "Fresh, simple and delicious: taste it today!",
        "funny": "The plate looks as if it did not want to be emptied.",
    },
    r"kitchen|bathroom|bedroom|toilet|sink|couch|sofa|bed": {
        "story": "Somebody had just left the room, and the light was still on.",
        "poem": "The room is still, and keeps what we have said.",
        "advertisement": "Feel at home in this room from the first day!",
        "funny": "The room is waiting for somebody to tidy it up.",
    },
    r"guitar|band|music\w*|sing\w*|stage|piano": {
        "story": "When the music ended, nobody wanted to be the first to leave.",
        "poem": "A song begins, and all the room is still.",
        "advertisement": "Come and hear the music for yourself!",
        "funny": "The music must be louder than it looks.",
    },
    r"phone|cellphone|laptop|computers?|keyboard|television|tv": {
        "story": "Then the screen went dark, and the world was there again.",
        "poem": "The screen is bright, the world outside can wait.",
        "advertisement": "Stay close to everybody who matters to you!",
        "funny": "The screen seems to be more interesting than the world.",
    },
    r"street|city|sidewalk|buildings?|town|sign|clock|tower": {
        "story": "The city went on around it as if nothing had happened.",
        "poem": "The city hums, and no one asks for names.",
        "advertisement": "Come and see what the city has to offer!",
        "funny": "The city has seen stranger things, but not many.",
    },
    r"grass|field|park|garden|trees?|forest|woods|flowers?": {
        "story": "The grass was still warm when the evening came.",
        "poem": "The green is deep, the afternoon is long.",
        "advertisement": "Come outside, where everything is green!",
        "funny": "The grass has surely never seen such a thing.",
    },
}  # fmt: skip
FOLLOW_UP = (
    ("What is in the picture?", "{}"),
    ("And what do you see in it?", "I see {}."),
    ("What is the image of, in a few words?", "It is of {}."),
)
PEOPLE_WROTE = (
    "flickr8k/",
    "coco/",
    "food_titles1000/",
    "recipes_public_domain/",
    "openstax_alt/",
)  # captions, not class names
PERSON = re.compile(
    r"\b(man|men|woman|women|boys?|girls?|child|children|kids?|people|person|player|baby|guy|lady|couple|crowd)\b"
)
FINITE = re.compile(
    r"\b(is|are|was|were|has|have|sits?|stands?|runs?|plays?|jumps?|walks?|holds?|looks?|rides?|wears?|swims?|lies|lays?|sleeps?|eats?|"
    r"takes?|poses?|flies|fly|makes?|shows?|climbs?|catches|carries|pulls?|performs?|chases?|leaps?|hangs?|rests?|watch(?:es)?|smiles?|"
    r"does|do|goes|go|tries|drinks?|pushes|throws?|kicks?|bites?|races?|shakes?|skis?|surfs?|talks?|waits?|leans?|enjoys?|gets?)\b"
)

ACTS = re.compile(r"\b(man|woman|boy|girl|dog|child|person|lady|cat|horse|bird|player|kid) (\w+ly )?\w+s\b")  # "a lady crosses"

# People title photographs without an article: "brown dog biting a stick", "plate of food".
NO_ARTICLE = re.compile(
    r"(?!an?\b|the\b|one\b|two\b|no\b|his\b|her\b|this\b|that\b|another\b|each\b|every\b|some\b|I\b)"
    r"((?!of\b|on\b|in\b|at\b|with\b|from\b|by\b|near\b|next\b|for\b|an?\b|the\b|\w+ing\b)[\w-]+ ){0,4}?"
    r"(man|woman|boy|girl|child|kid|person|player|baby|toddler|guy|lady|couple|crowd|group|rider|skater|skateboarder|"
    r"snowboarder|surfer|skier|biker|cyclist|climber|runner|swimmer|dog|puppy|cat|kitten|horse|cow|sheep|bird|"
    r"elephant|bear|zebra|giraffe|duck|pile|stack|slice|piece|bunch|plate|bowl|cup|mug|glass|bottle|jar|box|basket|"
    r"tray|sandwich|burger|pizza|cake|cupcake|pie|tart|bun|bagel|cookie|donut|doughnut|muffin|burrito|taco|salad|"
    r"omelette|dish|meal|room|kitchen|bedroom|bathroom|street|road|beach|field|park|table|chair|bed|bench|couch|sofa|"
    r"car|bus|truck|train|boat|plane|airplane|bike|bicycle|motorcycle|skateboard|ball|close-up|closeup|view|picture|"
    r"photo|photograph|shot|hot dog|hotdog)(?= (?!and\b)|$)"
)


def lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not re.match(r"I\b|[A-Z]{2}", text) else text


def clause(text: str, past: bool = False) -> str:
    """A caption as a clause without its full stop: "a man on a horse" is none, "there is a man on a horse" is."""
    said = lower(text.rstrip(". "))
    if FINITE.search(said) or said.startswith("the ") or ACTS.search(said):
        return said
    many = re.match(r"(two|three|four|five|six|many|several|some|people|men|women|children|\w+[^s]s\b)", said)
    if not many and NO_ARTICLE.match(said):
        said = f"{'an' if said[0] in 'aeio' else 'a'} {said}"
    return f"there {('were' if past else 'are') if many else ('was' if past else 'is')} {said}"


def topic(captions: list[str]) -> str:
    text = " ".join(captions).lower()
    kinds = Counter(kind for kind in map(kind_of, things_in(text)) if kind)
    if PERSON.search(text) and not (kinds and kinds.most_common(1)[0][0] == "animal"):
        return "person"
    return kinds.most_common(1)[0][0] if kinds else ""


def fitting(kind: str, captions: list[str]) -> str | None:
    """The close for what half of the captions or more speak of, the first of those that as many do."""
    if kind not in ("story", "poem", "advertisement", "funny"):
        return None
    counts = {said: sum(bool(re.search(rf"\b(?:{said})\b", text.lower())) for text in captions) for said in OF_THINGS}
    said = max(counts, key=lambda each: counts[each])
    return OF_THINGS[said][kind] if 2 * counts[said] >= len(captions) else None


def composed(kind: str, sentences: list[str], about: str, rng: random.Random, captions: list[str]) -> str:
    fits = fitting(kind, captions)
    if kind == "poem":
        lines = [text.rstrip(".") for text in sorted(sentences, key=len)]
        known = [*LAST_LINE[about], *LAST_LINE[""]] if about else [*LAST_LINE[""]]
        ends = [fits] if fits else []
        known = [line for line in known if line != fits]  # a line that is said twice makes a loop, and is thrown away
        ends += rng.sample(known, min(len(known), (3 if len(lines) < 3 else 2) - len(ends)))
        return ",\n".join([lines[0], *map(lower, lines[1:])]) + ".\n" + "\n".join(ends)
    if kind == "describe":
        return " ".join(capital(clause(text)) + "." for text in sentences)
    past = kind == "story"
    first = rng.choice(OPEN[kind]).format(clause(sentences[0], past)) + "."
    rest = [capital(clause(text, past)) + "." for text in sentences[1:]]
    ends = fits or rng.choice([*CLOSE[kind].get(about, ()), *CLOSE[kind][about], *CLOSE[kind][""]])
    return " ".join([first, *rest, ends])


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data, target = Path(sys.argv[1]), Path(sys.argv[2])
    made: list[dict] = []
    talks: list[dict] = []
    kinds: Counter = Counter()
    for name in ("captions.train.jsonl", "world_captions.train.jsonl"):
        for line in (data / name).open(encoding="utf-8"):
            row = json.loads(line)
            image, captions = row["image"], row["answers"]
            if not image.startswith(PEOPLE_WROTE) or (name.startswith("captions") and zlib.crc32(image.encode()) % 3):
                continue  # a third of Flickr8k: people and dogs are a part of the world
            rng = random.Random(f"compose {image}")
            told = describe(captions) or max(captions, key=len)
            sentences = re.split(r"(?<=[.!?]) ", told)[:3]
            about = "food" if image.startswith(("food", "recipes")) else topic(captions)
            done = []
            wanted = rng.sample(["poem", "story", "advertisement", "funny"], 2) + rng.sample(
                ["next", "who", "advice", "mood", "describe"], 2
            )
            for kind in wanted:
                answer = composed(kind, sentences, about, rng, captions)
                if fault(answer, captions) is None:
                    kinds[kind] += 1
                    made.append({"image": image, "question": rng.choice(KINDS[kind][1]), "answer": answer})
                    done.append(made[-1])
            if len(done) >= 2 and rng.random() < 0.3:
                talks.append({"image": image, "conversation": turns(done, min(captions, key=len), rng)})
    target.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    (target.parent / "conversations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks), encoding="utf-8")
    print(len(made), "answers", dict(kinds), len(talks), "conversations")


def turns(rows: list[dict], short: str, rng: random.Random) -> list[dict]:
    """Two turns about one image: two requests, or what is in it and a request."""
    first, second = rng.sample(rows, 2)
    pairs = [(row["question"], row["answer"]) for row in (first, second)]
    if rng.random() < 0.6:
        asked, form = rng.choice(FOLLOW_UP)
        said = lower(short.rstrip(". ")) if form != "{}" else short
        pairs[rng.randrange(2)] = (asked, form.format(said))
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]


if __name__ == "__main__":
    main()
