"""Whole dialogues with an endpoint that answers as badly as it can: each reply is dealt with, nothing loops, and what it cost
is counted."""

from itertools import cycle

import httpx2
import pytest
from PIL import Image
from scripted import Server, completion

from minigpt4.dialogue.agents import AgentError, CostCeiling
from minigpt4.dialogue.captioner import Partners, Rules, converse
from minigpt4.dialogue.endpoint import Endpoint, Limits
from minigpt4.dialogue.prompts import load_prompts
from minigpt4.dialogue.video import converse_video
from minigpt4.media.video import Frame

PICTURE = Image.new("RGB", (40, 30), "red")
SAYS = {
    "good": "There is a dog. ",
    "empty": "",
    "blank": " \n ",
    "question inside the answer": "A dog. Question: and what else? Answer: a cat",
    "answer inside the question": "Question: what? Answer: a dog. Question: where? Answer: here",
    "frame 99": "Frame_99: What is there?",
    "frame 1": "Frame_1: What is there?",
    "long": "word " * 50_000,
}
BREAKS = {
    "429": lambda: httpx2.Response(429, headers={"retry-after": "3600"}),
    "500": lambda: httpx2.Response(500, text="<html>"),
    "hang": lambda: httpx2.ReadTimeout("nothing came"),
    "garbage": lambda: httpx2.Response(200, content=b"\xff<html>"),
    "10 MB": lambda: httpx2.Response(200, content=(b"x" * 65536 for _ in range(160))),
    "half a reply": lambda: httpx2.RemoteProtocolError("the other side hung up"),
    "no choices": lambda: httpx2.Response(200, json={}),
}
ROUNDS, RETRIES, AGAIN = 5, 1, 2
CALLS = (2 * ROUNDS + 6) * (RETRIES + 1) * (AGAIN + 1)
"""Questions, answers and summaries (of four segments, and merged), each with its attempts, each with its tries."""


def agent(first, nasty, cost=None):
    """An endpoint that plays replies, the nasty ones round and round; and its server."""
    plays = (play for plays in (first, cycle(nasty)) for play in plays)

    def reply(request):
        play = next(plays)
        made = completion(SAYS[play], 10, 10) if play in SAYS else BREAKS[play]()
        if isinstance(made, Exception):
            raise made
        return made

    server, waits = Server(reply), []
    limits = Limits(retries=RETRIES, cost=cost, longest_wait=60)
    made = Endpoint("http://x/v1", "m", prices=(1e4, 1e4), limits=limits, transport=server.transport, sleep=waits.append)
    made.waits = waits
    return made, server


def talk(kind, made):
    partners, rules = Partners(questioner=made, answerer=made), Rules(rounds=ROUNDS, patience=0, retries=AGAIN)
    if kind == "image":
        return converse(PICTURE, partners, load_prompts()["image"], rules)
    frames = [Frame(i, float(i), PICTURE) for i in range(3)]
    return converse_video(frames, "a.mp4", partners, load_prompts()["video"], rules)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("nasty", [*SAYS, *BREAKS])
def test_after_one_good_answer_whatever_comes_the_dialogue_ends(kind, nasty):
    made, server = agent(["good"], [nasty])
    done = talk(kind, made)
    assert done.caption
    assert 1 <= len(done.rounds) <= ROUNDS
    assert all(round.frame is None or 1 <= round.frame <= 3 for round in done.rounds)
    assert len(server.requests) == made.spent.requests <= CALLS
    assert made.spent.cost > done.spent["cost"] * 0.999 > 0
    assert bool(done.problems) == (nasty in BREAKS)
    assert max(made.waits, default=0) <= 60
    assert "Question:" not in done.caption


@pytest.mark.parametrize("kind", ["image", "video"])
def test_all_of_it_in_turn(kind):
    made, server = agent(["good"], [*BREAKS, *SAYS])
    done = talk(kind, made)
    assert done.caption
    assert len(server.requests) == made.spent.requests <= CALLS
    with pytest.raises(AgentError, match="500"):
        talk(kind, agent([], ["500"])[0])


@pytest.mark.parametrize("nasty", [*SAYS, *BREAKS])
def test_the_ceiling_holds_whatever_comes(nasty):
    made, _ = agent(["good"], [nasty], cost=40.0)
    try:
        assert talk("image", made).caption
    except CostCeiling:
        assert made.spent.requests == 0
    assert made.spent.cost <= 40.0
