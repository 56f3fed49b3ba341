"""Words of a sentence by rule: which carry its content, their singulars and stems, and which mean a person."""

import re


def words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


MALE = words("man boy guy male gentleman father dad son brother husband grandfather groom lad he his him himself")
FEMALE = words("woman girl lady female mother mom daughter sister wife grandmother bride she her herself")
ADULT = words("man woman guy gentleman lady father mother dad mom husband wife groom bride adult grandfather grandmother")
CHILD = words("boy girl child kid toddler baby infant lad")
NEUTRAL = words(
    "person child kid toddler baby infant adult someone teenager player rider skier surfer biker skateboarder snowboarder "
    "climber hiker runner cyclist swimmer worker friend individual"
)
PEOPLE = (MALE | FEMALE | ADULT | CHILD | NEUTRAL) - words("he his him himself she her herself")

_IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "grandchildren": "grandchild"}
_IRREGULAR |= {"geese": "goose", "mice": "mouse", "oxen": "ox", "feet": "foot", "teeth": "tooth", "cacti": "cactus"}
_IN_F = words("calf elf half hoof leaf scarf thief wolf")
_IN_VES = {"knives": "knife", "wives": "wife", "loaves": "loaf", "shelves": "shelf"}
"""Ends of words, too: ``pocketknives``."""
_IN_I = words(
    "alibi bikini bugatti chili corgi deli emoji ferrari graffiti jacuzzi jetski khaki kiwi lamborghini maserati martini mini "
    "panini pastrami rabbi safari salami samurai sari semi ski taxi tiki tsunami yeti zucchini"
)
"""Nouns whose plural is in -is; other words in -is are no plurals: ``tennis``."""
_IN_E = words(
    "aussie beanie birdie bowtie brownie budgie calorie collie cookie cutie die doggie foodie genie goalie groupie "
    "hoodie hottie junkie laddie lassie lie magpie movie necktie newbie onesie pie pinkie pixie potpie prairie roadie "
    "rookie selfie smoothie sweetie talkie tie veggie vie walkie yorkie zombie ache avalanche cache headache "
    "moustache mustache niche porsche quiche"
)
"""Nouns whose plural in -ies or -ches is theirs and an s."""
_IN_O = words("buffalo cargo domino echo flamingo hero mango mosquito motto potato tomato tornado torpedo volcano")
"""Nouns whose plural is in -oes; others have an e of their own: ``canoes``."""
_IN_S = words("atlas bus canvas gas lens minibus series species trolleybus")
"""Nouns in -s that are no plurals."""
_NO_MEN = words("men omen amen ramen semen stamen regimen specimen abdomen acumen cyclamen")
PLURAL_ONLY = words("glasses jeans pants shorts scissors stairs clothes")
_WITH_S, _WITH_ES, _AS_THEY_ARE = _IN_I | _IN_E, _IN_O | _IN_S, PLURAL_ONLY | _IN_S

_EMPTY = words(
    "a an the is are was were be been being and or but of in on at to with by for from into onto as it its his her their he "
    "she they this that these those there which who while some very two one three has have"
)


def singular(word: str) -> str:
    """A noun's singular; other words mostly as they are."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("men") and word not in _NO_MEN:
        return word[:-3] + "man"
    if word[:-2] in _WITH_ES and word.endswith("es"):
        return word[:-2]
    if word[:-1] in _WITH_S and word.endswith("s"):
        return word[:-1]
    if word.endswith("ves") and (own := _of_ves(word)) is not None:
        return own
    if word in _AS_THEY_ARE or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "'s")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "sses", "xes")) else word[:-1]


def _of_ves(word: str) -> str | None:
    """The singular of a plural in -ves whose singular ends in an f or fe."""
    if word[:-3] + "f" in _IN_F:
        return word[:-3] + "f"
    return next((word[: -len(many)] + one for many, one in _IN_VES.items() if word.endswith(many)), None)


def stem(word: str) -> str:
    """A word without the commonest endings, so that ``runs`` and ``running`` are the same."""
    word = singular(word)
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word.removesuffix("e")


def said(text: str) -> list[str]:
    """The words of a text, in lower case and in order."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z]+)*", text.lower().replace("\u2019", "'"))


def stems(text: str) -> list[str]:
    """Stems of the words of a text; every word for a person is the same."""
    return ["person" if singular(word) in PEOPLE else stem(word) for word in said(text)]


def content_words(text: str) -> frozenset[str]:
    """Stems of the words that carry a text's content."""
    return frozenset(one for word, one in zip(said(text), stems(text), strict=True) if word not in _EMPTY)
