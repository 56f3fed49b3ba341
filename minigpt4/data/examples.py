"""From words to ids: what the language model reads of one sample, and what of it is learnt.

A sample becomes the tokens that all its answers share (the *prefix*: beginning of sequence, pictures, question) and one
branch for each answer. Every span of text is tokenised by itself and labelled as it is laid down, so no label depends on
where a tokenizer happens to cut the joined text.

Sources: MiniGPT-4 paper, section 3; the order of spans and the two limits are those that the published weights were
trained with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError
from ..model.modeling import IGNORE
from ..model.processing import MiniGPT4Processor


@dataclass(frozen=True)
class Branch:
    """What follows the prefix: ids, and labels of the same length (`IGNORE` for what is read but not learnt)."""

    ids: list[int]
    labels: list[int]
    hidden: tuple[int, ...] = ()
    """Places in `ids` that nothing may attend to. Only the published treatment of the pad string makes any."""
    factors: tuple[float, ...] = ()
    """By what the loss of each label is multiplied; by nothing if empty."""


@dataclass(frozen=True)
class Example:
    """A sample after tokenising: the shared prefix, none of which is learnt, and one or more branches."""

    prefix_ids: list[int]
    branches: tuple[Branch, ...]

    @property
    def supervised(self) -> int:
        """How many tokens carry loss."""
        return sum(label != IGNORE for branch in self.branches for label in branch.labels)


def build_example(
    processor: MiniGPT4Processor,
    prompt: str,
    answers: Sequence[str],
    turns: Sequence[tuple[str, str]] = (),
    *,
    end: str | None = None,
    bos: bool | None = None,
    max_txt_len: int | None = None,
    max_context_len: int | None = None,
    official_pad: int | None = None,
) -> Example:
    """Tokenise one sample.

    Args:
        processor: its tokenizer, image token and image token count are used; its chat template gives the defaults of `end`
            and `bos`.
        prompt: the first question as training writes it (`ChatTemplate.training_prompt`), placeholders included; a
            placeholder alone is a picture without a question (the published first stage).
        answers: one answer, or several that do not see each other: each becomes a branch.
        turns: further (question, answer) pairs of the same conversation, each question as
            ``training_prompt(..., first=False)`` writes it. Only beside a single answer.
        end: closes every answer and is learnt with it.
        bos: whether the prefix begins with the beginning-of-sequence token (never twice).
        max_txt_len: most tokens of a branch; what is beyond is cut, the end with it, so that a cut answer does not teach
            to stop there.
        max_context_len: most tokens of the prefix beside the beginning-of-sequence token; cut at its right end.
        published_pad: the id of the published pad string. With it, that id inside an answer is treated as the published
            code does: of a single turn it is not learnt; in a conversation it is learnt, but nothing attends to it.
            Without it, it is a token like any other.

    Raises:
        UserError: a limit that would cut into a picture, or several answers beside further turns.
    """
    if turns and len(answers) != 1:
        raise UserError("a conversation of several turns has one answer to each question")
    if not answers:
        raise UserError("a sample needs at least one answer")
    template = processor.chat
    end = template.end if end is None else end

    prefix = processor.encode(prompt)
    if max_context_len is not None and len(prefix) > max_context_len:
        if processor.image_token_id in prefix[max_context_len:]:
            raise UserError(
                f"max_context_len {max_context_len} would cut into a picture: "
                f"up to the end of its last one this prompt takes {_last(prefix, processor.image_token_id) + 1} tokens"
            )
        prefix = prefix[:max_context_len]
    begin = processor.tokenizer.bos_token_id
    if (template.add_bos if bos is None else bos) and prefix[:1] != [begin]:
        prefix = [begin, *prefix]

    if not turns:
        branches = [_learnt(processor, answer + end) for answer in answers]
        branches = [Branch(b.ids[:max_txt_len], b.labels[:max_txt_len]) for b in branches]
        if official_pad is not None:
            branches = [Branch(b.ids, [IGNORE if i == official_pad else i for i in b.ids]) for b in branches]
        return Example(prefix, tuple(branches))

    ids, labels = list[int](), list[int]()
    for question, answer in [("", answers[0]), *turns]:
        if question:
            asked = processor.encode(template.gap + question)
            ids += asked
            labels += [IGNORE] * len(asked)
        answered = _learnt(processor, answer + end)
        ids += answered.ids
        labels += answered.labels
    if max_txt_len is not None and processor.image_token_id in ids[max_txt_len:]:
        raise UserError(f"max_txt_len {max_txt_len} would cut away a picture of a later turn")
    ids, labels = ids[:max_txt_len], labels[:max_txt_len]
    hidden = tuple(place for place, i in enumerate(ids) if i == official_pad)
    return Example(prefix, (Branch(ids, labels, hidden),))


def side_by_side(examples: Sequence[Example]) -> Example:
    """Questions about the same pictures as one example: what all prompts begin with is the prefix, and what else each of
    them says is read, but not learnt, at the beginning of its branches."""
    prefix = examples[0].prefix_ids
    shared = min(_common(prefix, other.prefix_ids) for other in examples)
    branches = []
    for example in examples:
        own = example.prefix_ids[shared:]
        branches += [Branch(own + b.ids, [IGNORE] * len(own) + b.labels) for b in example.branches]
    return Example(prefix[:shared], tuple(branches))


def _common(one: list[int], other: list[int]) -> int:
    """How many ids two lists begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _learnt(processor: MiniGPT4Processor, text: str) -> Branch:
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return Branch(ids, list(ids))


def _last(ids: list[int], wanted: int) -> int:
    return len(ids) - 1 - ids[::-1].index(wanted)
