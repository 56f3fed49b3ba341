"""The words of a text that may name things: rules instead of a tagger, good enough to see whether a dialogue still finds
something new. What they take for a thing is a content word in its singular."""

import re

from ..metrics.words import singular

_WORD = re.compile(r"[a-z]+(?:['\u2019-][a-z]+)*")
_ENDINGS = re.compile(r"['\u2019].*")  # of an owner or a shortened verb: the dog's, it's; a word with n't names nothing
_OTHERS = frozenset(
    # grammar
    "a about above across after again against all along also although always an and another any are around as at away back "
    "be because been before behind being below beneath beside besides between both but by can cannot close could did do does "
    "doing done down during each either else enough even ever every few for from front further had has have having he her here "
    "hers herself him himself his how i if in inside instead into is it its itself just least left less like likely many may "
    "maybe me might mine more most much must my near nearby neither never next no none nor not nothing now of off on once one "
    "only onto or other others our out outside over own per perhaps quite rather right same several shall she should since so "
    "some someone something still such than that the their theirs them themselves then there these they this those though "
    "through throughout to together too toward towards two three four five six seven eight nine ten under unless until up upon "
    "us very was we well were what when where whether which while who whom whose why will with within without would yes yet "
    "you your yours first second third last left various different multiple single "
    # what answers say about themselves and about images
    "image images picture pictures photo photos photograph scene view answer question sure know clear visible seen see seems "
    "seem appear appears appearing possible possibly probably exactly unclear unknown sorry kind type sort way thing things "
    "background foreground side middle center centre top bottom part area lot number frame frames video clip detail details "
    # qualities
    "red blue green yellow orange purple pink black white brown grey gray tan beige golden dark light bright pale big small "
    "large little tall short long wide old young new high low good nice beautiful happy same open closed full empty clean "
    # what is commonly done
    "show shows shown showing look looks looking stand stands standing sit sits sitting wear wears wearing worn hold holds "
    "holding held walk walks walking run runs running ride rides riding play plays playing take takes taking taken make makes "
    "making made go goes going come comes coming get gets getting give gives use uses used using lie lies lying lay laying "
    "carry carries carrying jump jumps jumping surround surrounded contain contains located placed position positioned set "
    "dirty depict depicts depicted describe described featuring feature features include includes including wait waiting talk "
    "talking eat eating drink drinking watch watching smile smiling pose posing say says said tell think find found".split()
)


def nouns(text: str) -> list[str]:
    """Words that may name things, in their singular, each once, in order."""
    words = (_ENDINGS.sub("", word) for word in _WORD.findall(text.lower()) if not word.endswith(("n't", "n\u2019t")))
    found = (singular(word) for word in words if word not in _OTHERS and len(word) > 2)
    return list(dict.fromkeys(word for word in found if word not in _OTHERS and not word.endswith("ly")))
