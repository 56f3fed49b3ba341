"""How a question is decoded: what the system wishes for its task, what was asked for instead, and what goes together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..engine.params import MOST_ANSWERS, SamplingParams, check_names
from ..errors import UserError
from ..prompt.tasks import NO_TASK, TASKS, Task, split_identifier

OWN = frozenset(("self_consistency", "mirrored", "zoom_in"))
"""Settings that are not the engine's: they are about asking more than once."""
_BESIDE = frozenset(("max_new_tokens", "temperature", "top_p", "top_k", "seed", *OWN))
"""Given settings that leave a wished self-consistency in place."""
OF_THE_WHOLE = frozenset(("zoom_in", "max_new_tokens", "min_new_tokens", "stop"))
"""Given settings of a description that the questions about each of its things do not take over."""

_LEAST_MIRRORED = 4
_MIRRORED = f"mirrored goes with self_consistency of {_LEAST_MIRRORED} or more"
_ZOOM_IN = f"zoom_in goes with {TASKS['grounding'].identifier}, or with {TASKS['refer'].identifier} and self-consistency"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one question is answered."""

    params: SamplingParams
    samples: int = 1
    """Answers that are sampled, of which the one that the others agree with most is given (self-consistency)."""
    mirrored: bool = False
    """Half of them before the image in a mirror."""
    zoom_in: bool = False
    """Ask again about what was found, nearer (zoom-in refinement)."""

    @property
    def several(self) -> bool:
        """Whether the system is asked more than once for the answer."""
        return self.samples > 1 or self.zoom_in

    @property
    def streams(self) -> bool:
        """Whether the answer can come piece by piece: not one that is chosen among several, or looked at again."""
        return self.params.num_beams == self.samples == 1 and not self.zoom_in

    def sampled(self, samples: int) -> SamplingParams:
        """Parameters for so many samples at once; the same seed for every question, so that an answer is the same beside others
        and alone."""
        return replace(self.params, n=samples, stratified=True, seed=self.params.seed or 0)


def plan_for(
    task: Task | None,
    wished: Mapping[str, Any],
    given: Mapping[str, Any],
    params: Callable[..., SamplingParams],
    *,
    streamed: bool = False,
    official: bool = False,
) -> Plan:
    """How a question of a task, or of none, is answered: as is wished for its task, unless other settings are given.

    What is wished gives way to what is given. Self-consistency gives way to settings that do not go with it, and
    ``self_consistency=1`` leaves it out. Beams and zoom-in refinement give way to streaming and to log-probabilities.
    Zoom-in refinement and mirror give way where there can be none.

    Args:
        wished: a system's settings for the question's task.
        params: makes sampling parameters of layers of settings (`Engine.params`).
        streamed: the answer is to come piece by piece.
        official: the answer is to be what the official code gives.

    Raises:
        UserError: given settings that do not exist, that do not go together, or not with this question.
    """
    given = {name: value for name, value in given.items() if value is not None}
    check_names(given, OWN)
    if streamed and given.get("num_beams", 1) != 1:
        raise UserError("beam search cannot be streamed: leave out num_beams, or ask without streaming")
    if streamed and given.get("self_consistency", 1) != 1:
        raise UserError(
            "an answer chosen among several cannot be streamed: leave out self_consistency, or ask without streaming"
        )
    given_up = _giving_way(given, streamed, official)
    if wished.get("max_new_tokens", 0) < given.get("min_new_tokens", 0):
        given_up.add("max_new_tokens")
    wished = {name: value for name, value in wished.items() if name not in given_up}
    settings = wished | given
    samples = _samples(settings, given, official)
    mirrored, zoom_in = (_yes_or_no(name, settings) for name in ("mirrored", "zoom_in"))
    if given.get("mirrored") and samples < _LEAST_MIRRORED:
        raise UserError(_MIRRORED)
    if streamed or not (task is TASKS["grounding"] or (task is TASKS["refer"] and samples > 1)):
        if given.get("zoom_in"):
            raise UserError(f"{_ZOOM_IN}, and with answers that come all at once")
        zoom_in = False
    if zoom_in and given.get("logprobs") is not None:
        raise UserError("zoom_in does not go with logprobs: the answer is put together of several")
    layers = [{name: value for name, value in layer.items() if name not in OWN} for layer in (wished, given)]
    if samples > 1:
        layers.append({"do_sample": True})
    decoded = params(*layers)
    if decoded.n != 1:
        raise UserError("n does not go with a question, which has one answer; self_consistency chooses among several")
    return Plan(params=decoded, samples=samples, mirrored=mirrored and samples >= _LEAST_MIRRORED, zoom_in=zoom_in)


def _giving_way(given: Mapping[str, Any], streamed: bool, official: bool) -> set[str]:
    """The wished settings that do not go with what is given."""
    found: set[str] = set()
    logprobs = given.get("logprobs") is not None
    if streamed or official or given.get("temperature") == 0 or set(given) - _BESIDE:
        found.add("self_consistency")
    if streamed or official or (logprobs and not given.get("zoom_in")):
        found.add("zoom_in")
    if streamed or (logprobs and "num_beams" not in given):
        found |= {"num_beams", "length_penalty"}
    return found


def plan_of(
    question: str,
    task_settings: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Any],
    params: Callable[..., SamplingParams],
    *,
    streamed: bool = False,
    official: bool = False,
    task: str | None = None,
) -> Plan:
    """How a question is answered: `plan_for`, with what the system wishes for the task that it names, or for `task` where it
    names none.

    Args:
        task_settings: the system's, by task.

    Raises:
        UserError: a question that is no text or names a task that there is not, or what `plan_for` refuses.
    """
    identified, _ = split_identifier(text_of(question))
    wished: dict[str, Any] = {}
    if identified is not None and identified.max_new_tokens is not None:
        wished["max_new_tokens"] = identified.max_new_tokens
    wished |= task_settings.get(identified.name if identified is not None else task or NO_TASK, {})
    return plan_for(identified, wished, given, params, streamed=streamed, official=official)


def check_text_alone(given: Mapping[str, Any]) -> None:
    """Raises UserError where settings ask for more than an answer's text."""
    if given.get("logprobs") is not None:
        raise UserError("logprobs would be lost, an answer is text here; the engine and the server give them")


def text_of(question: Any) -> str:
    """A question, which must be text.

    Raises:
        UserError: it is none.
    """
    if not isinstance(question, str):
        raise UserError(f"a question must be text, not {question!r}")
    return question


def check_task_settings(
    task_settings: Mapping[str, Mapping[str, Any]], params: Callable[..., SamplingParams], official: bool = False
) -> None:
    """See that a system's settings by task can all be followed.

    Raises:
        UserError: a task or a setting that does not exist, or settings that do not go together, or not with the task.
    """
    for name, wished in task_settings.items():
        if name not in TASKS and name != NO_TASK:
            raise UserError(f"there is no task {name!r}; there are {', '.join([*TASKS, NO_TASK])}")
        task = TASKS.get(name)
        try:
            check_names(wished, OWN)
            plan = plan_for(task, wished, {}, params, official=official)
            if wished.get("mirrored") and not (plan.mirrored or official):
                raise UserError(_MIRRORED)
            if wished.get("zoom_in") and not (plan.zoom_in or official):
                raise UserError(_ZOOM_IN)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


def _yes_or_no(name: str, settings: Mapping[str, Any]) -> bool:
    value = settings.get(name, False)
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, not {value!r}")
    return value


def _samples(settings: Mapping[str, Any], given: Mapping[str, Any], official: bool) -> int:
    samples = settings.get("self_consistency", 1)
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MOST_ANSWERS:
        raise UserError(f"self_consistency is a number of answers, from 1 to {MOST_ANSWERS}, not {samples!r}")
    if samples == 1:
        return 1
    if official:
        raise UserError("official behaviour with self-consistency is not offered")
    greedy = {"do_sample": given.get("do_sample") is False, "temperature": given.get("temperature") == 0}
    for name, clashes in (greedy | {"num_beams": given.get("num_beams", 1) != 1}).items():
        if clashes:
            raise UserError(f"self_consistency samples its answers: leave out {name}={given[name]}, or self_consistency")
    if given.get("logprobs") is not None:
        raise UserError("self_consistency does not go with logprobs")
    return samples
