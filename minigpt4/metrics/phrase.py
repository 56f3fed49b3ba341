"""Which word of a noun phrase is the thing itself, in a phrase and in a sentence. A rule, not a grammar."""

import re
from collections.abc import Sequence

from .words import PEOPLE, singular, words

COLOURS = {word: word for word in words("red blue green yellow orange purple pink black white brown grey")}
COLOURS |= {"gray": "grey", "tan": "brown", "beige": "brown", "golden": "brown", "gold": "brown", "violet": "purple"}
"""Words for colours, and which colour each is."""
ANIMALS = words("dog puppy cat kitten horse pony bird cow sheep goat bear elephant giraffe zebra duck goose monkey animal")

# Words at which what is said about the thing begins: "the man | in a blue shirt".
_AFTER = words(
    "in on at with of from by near behind under over above below beside between inside outside into onto through across "
    "around along against towards toward next to for before after during off up down while as like without and or is are "
    "was were who that which whose being"
)
_IN_SENTENCES = words("a an the this that these those his her its their there it he she they but out be been has have")
"""Words that end a phrase in a sentence as well."""
# Words for "some of", whose thing follows: "a group of | people".
_SOME = words(
    "group pair couple bunch set lot lots crowd number piece pieces part parts row rows variety kind type side stack pile "
    "handful series collection team line two three four five six several many some all both one"
)
_ING_NOUNS = words(
    "building clothing ring king string wing swing railing painting ceiling thing spring sling evening morning wedding awning "
    "crossing sibling darling earring dressing icing bowling boxing ping bling opening setting landing scaffolding siding "
    "lightning housing lighting flooring frosting topping stuffing drawing carving rigging paddling something nothing anything "
    "everything bedding stocking wrapping sterling viking offspring"
)
_QUALITIES = frozenset(COLOURS) | words("silver blond blonde dark light young old big small large little")
_ARTICLES = words("a an the this that these those his her its their my your our some")
_LONGEST = 5


def head_noun(phrase: str) -> str:
    """The noun that a phrase is about, in lower case; empty for an empty phrase.

    The last word before the first preposition, conjunction, or participle in -ing, where "of" after a word of quantity is
    passed over. ``"two dogs"`` -> ``dogs``, ``"a man in a red hat"`` -> ``man``, ``"a group of young people running"`` ->
    ``people``.
    """
    found = head_words(phrase)
    return found[-1].removesuffix("'s") if found else ""


def head_words(phrase: str) -> list[str]:
    """The words of a phrase up to its head noun, in lower case, without what "of" after a word of quantity follows:
    ``"a group of young people running"`` -> ``["young", "people"]``."""
    found = re.findall(r"[a-z0-9][a-z0-9'-]*", phrase.lower())
    start = 0
    for i, word in enumerate(found[:-1]):
        if word == "of" and i > start and found[i - 1] in _SOME:
            start = i + 1
    head = head_place(found, start)
    return found[start : head + 1] if head is not None else []


def head_place(found: Sequence[str], start: int = 0, *, sentence: bool = False, one: bool = False) -> int | None:
    """The place of the noun that the words from `start` on lead up to, or None.

    Args:
        found: words in lower case, and in a sentence its marks.
        sentence: the words go on behind the phrase, with a verb perhaps; then the phrase also ends at a word in the plural, or
            for a person or an animal.
        one: in a sentence, whether it is a single thing: then a word in -s is the verb.
    """
    head = None
    for i in range(start, min(len(found), start + _LONGEST) if sentence else len(found)):
        word, before, after = found[i], found[i - 1 : i][-1:] if i else [], found[i + 1 : i + 2]
        if word in ("and", "or", ",") and _are(before, _QUALITIES) and (_are(after, _QUALITIES) or not sentence):
            continue  # "a black and white dog"
        begun = head is not None and found[head] not in _ARTICLES
        participle = word.endswith("ing") and word not in _ING_NOUNS and not _are(before, _QUALITIES)
        ends = word in _AFTER or participle or (sentence and (word in _IN_SENTENCES or not word[:1].isalnum()))
        if ends and (begun or sentence):
            break
        if sentence and one and begun and word.endswith("s") and not word.endswith(("ss", "us")):
            break
        head = i
        if sentence and ((not one and singular(word) != word) or (_is_someone([word]) and not _is_someone(after))):
            break  # what follows is its verb
    return None if head is None or (sentence and found[head] in COLOURS) else head


def _are(word: Sequence[str], listed: frozenset[str]) -> bool:
    return bool(word) and word[0] in listed


def _is_someone(word: Sequence[str]) -> bool:
    """Whether there is a word for a person or an animal; two of them may be one: ``a baby girl``."""
    return bool(word) and singular(word[0]) in PEOPLE | ANIMALS
