"""Captions judged by a language model, in the two ways of the MiniGPT-4 paper.

Sources: arXiv 2304.10592 in its second version (`one-caption`), and the text of ICLR 2024 (`each-caption`); the prompts are
those of the papers, word for word. Their judges were ChatGPT and gpt-4-1106-preview; numbers of other judges are not theirs.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..dialogue.agents import Agent, AgentError, AgentGone, Prompt, Reply
from ..errors import UserError
from ..io.jsonl import Output
from ..jobs.made_by import BY, check_maker
from ..jobs.resumable import Watch
from ..metrics.interval import Score, bootstrap
from .benchmarks.base import Row
from .table import Line, Report

_EACH = """\
Given a test image description and a list of gt image caption, verify whether the information in gt caption is included in the \
test description. The answer should be yes or no. Input is in this format:
Test: (test sentence)
1: (gt1)
2: (gt2)
3: (gt3)
you need to answer yes or no for each gt in the following format:
1: (yes/no)
2: (yes/no)
3: (yes/no)"""
_ONE = (
    "There is one image caption1 '{truth}', and there is another image caption2 '{text}'. Does image caption2 cover all the "
    "objects and visual relations shown in image caption1? Only answer yes or no without any explanation."
)
_NUMBERED = re.compile(r"^\W*(\d+)\W+(yes|no)\b(?!/)", re.IGNORECASE | re.MULTILINE)
_SAID = re.compile(r"^\W*(yes|no)\b(?!/)", re.IGNORECASE)
_TRIES, _MOST_TOKENS, _SEED = 3, 100, 0


@dataclass(frozen=True)
class Protocol:
    """A way to judge: what is asked about a text and people's captions, and what a reply says.

    Args:
        truth: the captions that a text is held against.
        messages: text and truth -> what the judge is asked.
        parse: reply and number of captions -> for each whether it is covered; None where the reply does not say so.
    """

    name: str
    measure: str
    truth: Callable[[Row], list[str]]
    messages: Callable[[str, Sequence[str]], list[Any]]
    parse: Callable[[str, int], list[bool] | None]


def _each_messages(text: str, truth: Sequence[str]) -> list[Any]:
    listed = "\n".join([f"Test: {text}", *(f"{i}: {caption}" for i, caption in enumerate(truth, 1))])
    return [{"role": "system", "content": _EACH}, {"role": "user", "content": listed}]


def _each_parse(reply: str, count: int) -> list[bool] | None:
    found = [(int(number), said.lower() == "yes") for number, said in _NUMBERED.findall(reply)]
    return [said for _, said in found] if [number for number, _ in found] == list(range(1, count + 1)) else None


def _one_truth(row: Row) -> list[str]:
    """One caption, drawn at random, the same one each time."""
    return [random.Random(f"{_SEED} {row['image']}").choice(row["captions"])]


def _one_messages(text: str, truth: Sequence[str]) -> list[Any]:
    return [{"role": "user", "content": _ONE.format(truth=truth[0], text=text)}]


def _one_parse(reply: str, count: int) -> list[bool] | None:
    said = _SAID.match(reply)
    return None if said is None else [said[1].lower() == "yes"]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("each-caption", "captions covered", lambda row: list(row["captions"]), _each_messages, _each_parse),
        Protocol("one-caption", "success", _one_truth, _one_messages, _one_parse),
    )
}


@dataclass
class Judged:
    """What came of it.

    Args:
        report: the judge's scores, a line a round, and how far two rounds agree.
        file: where the verdicts are.
        unreadable: verdicts that could not be read after several tries; `failed`: what the judge could not be asked, and why.
        spent: tokens and money of this run.
    """

    report: Report
    file: Path
    unreadable: int
    failed: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)


def judge(
    rows: Sequence[Row],
    agent: Agent,
    protocol: str,
    file: Path,
    *,
    rounds: int = 2,
    limit: int | None = None,
    at_a_time: int = 16,
    watch: Watch = Watch(),
) -> Judged:
    """Have answers judged at temperature 0, each as often as there are rounds; verdicts are kept, and a run can be continued.

    Args:
        rows: answered rows of the benchmark ``captions``.
        agent: the judge.
        protocol: one of `PROTOCOLS`.
        file: JSON Lines of verdicts: text, captions, reply, what was read in it (null where nothing can be), tokens and cost.
        rounds: the same questions, asked anew, to see how far a judge agrees with itself.
        limit: so many answers, the same ones each time.

    Raises:
        UserError: an unknown protocol, rows without captions, verdicts by another judge, or nothing that could be judged.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"{protocol}: no such protocol; there are {', '.join(PROTOCOLS)}")
    if missing := next((row for row in rows if not row.get("captions")), None):
        raise UserError(f"the row about {missing.get('image')} has no captions of people: judge answers to `captions`")
    way = PROTOCOLS[protocol]
    if limit and limit < len(rows):
        rows = [rows[i] for i in sorted(random.Random(_SEED).sample(range(len(rows)), limit))]
    asked = [_item(way, row, number) for number in range(1, rounds + 1) for row in rows]
    output = Output(file, "reply", beside=("verdict", "tries", "tokens", "cost", BY))
    failed: list[str] = []
    try:
        check_maker(file, output.rows, agent.name)
        todo = [item for item in asked if not output.take(item)]
        watch.begin(f"verdicts, {protocol}", len(asked), len(asked) - len(todo))
        remaining = iter(todo)
        while batch := list(islice(remaining, at_a_time)):
            ended = False
            for item, verdict in _verdicts(way, agent, batch):
                ended |= isinstance(verdict, AgentGone)
                if isinstance(verdict, AgentError):
                    failed.append(f"{item['image']}: {verdict}")
                    watch.wrong(failed[-1])
                else:
                    output.write([item | verdict | {BY: agent.name}])
            watch.advance(len(batch))
            if ended:  # no more may be spent, or nobody is there
                break
        output.sort(asked)
        wanted = {output.key(item) for item in asked}
        done = [row for row in output.rows if output.key(row) in wanted]
    finally:
        watch.end()
        output.close()
    if not done:
        raise UserError(f"nothing could be judged: {failed[0] if failed else 'no answers'}")
    unreadable = sum(row["verdict"] is None for row in done)
    return Judged(_report(way, done, rounds), file, unreadable, failed, agent.spent.row())


def _item(way: Protocol, row: Row, number: int) -> Row:
    """What is judged. A text is one line: whoever wrote it does not write the judge's list."""
    text = " ".join(row["answer"].split())
    truth = [" ".join(caption.split()) for caption in way.truth(row)]
    return {"protocol": way.name, "round": number, "image": row["image"], "text": text, "truth": truth}


def _verdicts(way: Protocol, agent: Agent, batch: Sequence[Row]) -> Iterator[tuple[Row, Row | AgentError]]:
    """The judge's verdict on each; one that cannot be read is asked for again."""
    open_: dict[int, Row] = dict(enumerate(batch))
    for attempt in range(_TRIES):
        prompts = [
            Prompt(
                messages=way.messages(item["text"], item["truth"]),
                max_new_tokens=_MOST_TOKENS,
                temperature=0.0,
                attempt=attempt + _TRIES * (item["round"] - 1),
            )
            for item in open_.values()
        ]
        still: dict[int, Row] = {}
        for (place, item), reply in zip(open_.items(), agent.answer(prompts), strict=True):
            if isinstance(reply, AgentError):
                yield item, reply
                continue
            verdict = way.parse(reply.text, len(item["truth"]))
            if verdict is None and attempt + 1 < _TRIES:
                still[place] = item
            else:
                yield item, _told(reply, verdict, attempt + 1)
        open_ = still
        if not open_:
            return


def _told(reply: Reply, verdict: list[bool] | None, tries: int) -> Row:
    tokens = [reply.prompt_tokens, reply.generated_tokens]
    return {"reply": reply.text[:2000], "verdict": verdict, "tries": tries, "tokens": tokens, "cost": round(reply.cost, 8)}


def _report(way: Protocol, rows: Sequence[Row], rounds: int) -> Report:
    lines, by_round = [], []
    for number in range(1, rounds + 1):
        own = [row for row in rows if row["round"] == number and row["verdict"] is not None]
        by_round.append({(row["image"], row["text"], *row["truth"]): row["verdict"] for row in own})
        if own:
            score = bootstrap([sum(row["verdict"]) for row in own], groups=[row["image"] for row in own])
            lines.append(Line(f"round {number}", {way.measure: score}, f"{len(own):,} answers"))
    notes = []
    if rounds > 1:
        notes.append(_agreement(by_round[0], by_round[1]))
    if unreadable := [row for row in rows if row["verdict"] is None]:
        said = " ".join(unreadable[0]["reply"].split())[:60]
        notes.append(f"{len(unreadable):,} of {len(rows):,} verdicts cannot be read and do not count, the first: {said!r}")
    read, written = (sum(row["tokens"][i] for row in rows) for i in (0, 1))
    cost = sum(row["cost"] for row in rows)
    notes.append(f"judge: {rows[0][BY]}, temperature 0; {read:,} tokens read, {written:,} written, {cost:.4f} spent on these")
    return Report(f"judge, {way.name}", len({(row["image"], row["text"]) for row in rows}), lines, notes)


def _agreement(one: dict[Any, list[bool]], two: dict[Any, list[bool]]) -> str:
    """How often two rounds say the same of the same caption, and Cohen's kappa."""
    pairs = [pair for key in one if key in two for pair in zip(one[key], two[key], strict=True)]
    if not pairs:
        return "rounds 1 and 2 have no verdict in common"
    groups = [key[0] for key in one if key in two for _ in one[key]]
    same = bootstrap([a == b for a, b in pairs], groups=groups)
    a, b = (sum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
    chance = a * b + (1 - a) * (1 - b)
    kappa = f"{(same.value - chance) / (1 - chance):.2f}" if chance < 1 else "not defined: all verdicts are the same"
    return f"rounds 1 and 2 agree on {_percent(same)} of {len(pairs):,} verdicts (kappa {kappa})"


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} % ({100 * score.low:.1f} .. {100 * score.high:.1f})"
