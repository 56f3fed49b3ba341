"""Which word of a noun phrase is the thing itself."""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words at which what is said about the thing begins: "the man | in a blue shirt".
_AFTER = _words(
    "in on at with of from by near behind under over above below beside between inside outside into onto through across "
    "around along against towards toward next to for before after during off up down while as like without and or is are "
    "was were who that which whose wearing holding looking"
)
# Words for "some of", whose thing follows: "a group of | people".
_SOME = _words(
    "group pair couple bunch set lot lots crowd number piece pieces part parts row rows variety kind type side stack pile "
    "handful series collection team line two three four five six several many some all both one"
)
_ING_NOUNS = _words(
    "building clothing ring king string wing swing railing painting ceiling thing spring sling evening morning wedding awning "
    "crossing sibling darling earring dressing icing bowling boxing ping bling being opening setting landing scaffolding "
    "siding lightning housing lighting flooring frosting topping stuffing drawing carving rigging paddling something nothing "
    "anything everything bedding stocking wrapping sterling viking offspring"
)
_COLOURS = _words(
    "black white brown red blue green yellow orange pink purple gray grey tan gold golden silver beige blond blonde dark "
    "light young old big small large little"
)
_ARTICLES = _words("a an the this that these those his her its their my your our some")


def head_noun(phrase: str) -> str:
    """The noun that a phrase is about, in lower case; empty for an empty phrase.

    A rule, not a grammar: the last word before the first preposition, conjunction, or participle in -ing, where "of" after
    a word of quantity is passed over. ``"two dogs"`` -> ``dogs``, ``"a man in a red hat"`` -> ``man``, ``"a group of young
    people running"`` -> ``people``.
    """
    words = re.findall(r"[a-z0-9][a-z0-9'-]*", phrase.lower())
    for i, word in enumerate(words[:-1]):
        if word == "of" and i and words[i - 1] in _SOME:
            return head_noun(" ".join(words[i + 1 :]))
    kept: list[str] = []
    for word in words:
        if word in ("and", "or") and kept and kept[-1] in _COLOURS:
            continue  # "a black and white dog"
        participle = word.endswith("ing") and word not in _ING_NOUNS and not (kept and kept[-1] in _COLOURS)
        begins_more = word in _AFTER or participle  # but not in "a red bathing suit"
        if begins_more and any(w not in _ARTICLES for w in kept):
            break
        kept.append(word)
    return kept[-1].removesuffix("'s") if kept else ""
