"""Text as the published processor cleans it, against hand-copied results; tokens put together again."""

import pytest

from minigpt4.prompt.text import clean_text, join_tokens

CASES = [
    ("A dog runs.", "a dog runs"),
    ("A dog (brown). Runs!", "a dog brown runs"),
    ("  leading and trailing spaces  ", "leading and trailing spaces"),
    ("Tabs\tand\t\ttabs", "tabs\tand tabs"),
    ("line one\nline two", "line one\nline two"),
    ("ends with newline\n", "ends with newline"),
    ("ends with newline and spaces \n  ", "ends with newline and spaces"),
    ("UPPER CASE Words", "upper case words"),
    ("semi;colon:colon~tilde", "semi colon colon tilde"),
    ("(parentheses) and [brackets] and {braces}", "parentheses and [brackets] and {braces}"),
    ("quote \"double\" and 'single'", "quote double and 'single'"),
    ("hash #tag * star", "hash tag star"),
    ("dots... many.... dots", "dots many dots"),
    ("question? stays, comma, stays", "question? stays, comma, stays"),
    ("dash - and -- double", "dash - and -- double"),
    ("slash / and \\ backslash", "slash / and \\ backslash"),
    ("percent 50% dollar $5 & ampersand @ at", "percent 50% dollar $5 & ampersand @ at"),
    ("3.14 is pi, 1,000 is big", "3 14 is pi, 1,000 is big"),
    ("e.g. i.e. etc.", "e g i e etc"),
    ("Mr. Smith's dog!", "mr smith's dog"),
    ("don't can't won't", "don't can't won't"),
    ("under_score and ^caret and =equals+plus", "under_score and ^caret and =equals+plus"),
    ("<tag> and </tag>", "<tag> and </tag>"),
    ("{<12><3><45><100>}", "{<12><3><45><100>}"),
    ("", ""),
    (" ", ""),
    ("...", ""),
    ("!!!", ""),
    ("\n", ""),
    ("\n\n a \n\n", "a"),
    ("École française à Paris", "école française à paris"),
    ("naïve café — em dash “curly quotes”", "naïve café — em dash “curly quotes”"),
    ("non\u00a0breaking\u00a0\u00a0space", "non\u00a0breaking space"),
    ("emoji 😀 here", "emoji 😀 here"),
    ("中文 text", "中文 text"),
    ("İstanbul dotted I", "i̇stanbul dotted i"),
    (" ".join(f"w{i}" for i in range(50)), " ".join(f"w{i}" for i in range(50))),
    (" ".join(f"w{i}" for i in range(51)), " ".join(f"w{i}" for i in range(50))),
    (" ".join(f"W{i}." for i in range(60)), " ".join(f"w{i}" for i in range(50))),
]


@pytest.mark.parametrize(("text", "cleaned"), CASES)
def test_text_is_cleaned_as_official(text, cleaned):
    assert clean_text(text) == cleaned


def test_the_limit_counts_words():
    assert clean_text("one two three four five six", max_words=5) == "one two three four five"


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("A dog runs .", "A dog runs."),
        ("a man 's dog , and a boys ' club !", "a man's dog, and a boys' club!"),
        ("He does n't run .", "He doesn't run."),
        ("a sign ( red ) says 50 % off", "a sign (red) says 50% off"),
        ("<p>A dog</p> {<1><2><3><4>} runs .", "<p>A dog</p> {<1><2><3><4>} runs."),
        ("a 'quoted' word", "a 'quoted' word"),
        ('a " Stop " sign , and " Go "', 'a "Stop" sign, and "Go"'),
        ("nothing to join", "nothing to join"),
    ],
)
def test_what_a_tokeniser_took_apart_is_put_together(text, joined):
    assert join_tokens(text) == joined
