"""A conversation that has grown too long: what it gives up, and how often it is read for that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt4.errors import UserError
from minigpt4.prompt.history import fitting_ids, without_oldest


def talk(lengths):
    """Questions and answers of so many letters, and a last question of three."""
    pairs = [("user", "q" * n) if i % 2 == 0 else ("assistant", "a" * n) for n in lengths for i in (0, 1)]
    return [{"role": role, "content": text} for role, text in pairs] + [{"role": "user", "content": "end"}]


def ids_of(messages):
    return [ord(letter) for message in messages for letter in message["content"]]


def one_by_one(messages, new, context):
    while len(ids_of(messages)) + new > context:
        messages = without_oldest(messages)
    return ids_of(messages)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 5), st.integers(8, 120))
def test_it_gives_up_as_little_as_it_must(lengths, new, context):
    messages = talk(lengths)
    assert fitting_ids(messages, ids_of, new, context) == one_by_one(messages, new, context)


def test_a_long_one_is_read_a_few_times():
    read = []

    def counted(messages):
        read.append(len(messages))
        return ids_of(messages)

    assert len(fitting_ids(talk([50] * 500), counted, 10, 1000)) == 903
    assert len(read) <= 12  # once for each of 491 questions would take seconds


def test_what_cannot_be_made_to_fit_is_said_with_the_last_question_alone():
    with pytest.raises(UserError, match="it takes 3 tokens, and 100 new ones do not fit"):
        fitting_ids(talk([50] * 5), ids_of, 100, 50)
    with pytest.raises(UserError, match="it takes 3 tokens"):
        fitting_ids(talk([]), ids_of, 100, 50)
