"""A system behind an OpenAI-compatible endpoint, asked as a loaded one is, so that what is served can be measured as it is."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..dialogue.agents import AgentError, AgentGone, Prompt
from ..dialogue.endpoint import Endpoint, Limits, data_uri
from ..errors import UserError
from ..inference.assistant import Images, as_list

_EVERYWHERE = frozenset(("max_new_tokens", "temperature", "top_p", "seed", "do_sample"))
"""Decoding settings that every endpoint has; the others are those of `minigpt4 serve`."""
_SECONDS, _AT_A_TIME = 600.0, 8


def connect(
    model: str,
    settings: Mapping[str, Any] | None = None,
    *,
    key_env: str = "OPENAI_API_KEY",
    prices: tuple[float, float] = (0.0, 0.0),
    max_cost: float | None = None,
) -> "Served":
    """The system at ``http://host/v1#name``, which is to decode by these settings.

    Raises:
        UserError: no name, nobody there, no model of that name there, or a setting that it does not have.
    """
    url, _, name = model.partition("#")
    if not name:
        raise UserError(f"{model}: name the endpoint's model too: {url}#MODEL")
    limits = Limits(cost=max_cost, timeout=_SECONDS, concurrency=_AT_A_TIME)
    served = Served(Endpoint(url, name, side=None, key_env=key_env, prices=prices, limits=limits))
    served.body(settings or {})
    return served


class Served:
    """A system behind an endpoint. Images are sent as they are, so that it sees what a loaded one would see.

    Raises:
        UserError: nobody is there, or it has no model of this name.
    """

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self._ended: AgentGone | None = None
        self.ours = endpoint.described().get("owned_by") == "minigpt4"
        """Whether it is a `minigpt4 serve`, which knows further settings and what its system wants for each task."""

    def ask_many(self, items: Sequence[tuple[Images, str]], batch_size: int = 16, **settings: Any) -> list[str | UserError]:
        """An answer to each question, or what was wrong with that one alone. (The endpoint bounds how many are on their way.)

        Others are asked for their likeliest answer where no setting says otherwise; a system of ours decodes as it does for
        everybody.

        Raises:
            AgentGone: no more money may be spent or nobody is there, as was found out with the questions before.
        """
        if self._ended is not None:
            raise self._ended
        self.endpoint.settings = self.body(settings)
        messages = [[{"role": "user", "content": question}] for _, question in items]
        prompts = [Prompt(messages=m, images=as_list(images)) for m, (images, _) in zip(messages, items, strict=True)]
        replies = self.endpoint.answer(prompts)
        self._ended = next((reply for reply in replies if isinstance(reply, AgentGone)), None)
        return [UserError(str(reply)) if isinstance(reply, AgentError) else reply.text for reply in replies]

    def check_choosing(self, benchmark: str) -> None:
        """Raises UserError: others' endpoints give text, and say nothing of how likely they find a text that is given."""
        if not self.ours:
            raise UserError(
                f"{benchmark} takes the likeliest of given answers, and {self.endpoint.name} cannot be asked how likely they "
                "are: only `minigpt4 serve` can; serve it with that, or name a folder with --model"
            )

    def choose(self, items: Sequence[tuple[Images, str, Sequence[str]]]) -> list[str | UserError]:
        """The likeliest candidate of each (images, question, candidates), or what was wrong with that one.

        Likeliest is what has the highest mean log-probability of a token, as in `ranking.choose`.

        Raises:
            AgentGone: no more money may be spent or nobody is there, as was found out with the questions before.
        """
        if self._ended is not None:
            raise self._ended
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            chosen = list(pool.map(lambda item: self._chosen(*item), items))
        self._ended = next((one for one in chosen if isinstance(one, AgentGone)), None)
        return [UserError(str(one)) if isinstance(one, AgentError) else one for one in chosen]

    def _chosen(self, images: Images, question: str, candidates: Sequence[str]) -> str | AgentError:
        distinct = list(dict.fromkeys(candidates))
        if len(distinct) == 1:
            return distinct[0]
        try:
            shown = [{"type": "input_image", "image_url": data_uri(image, None)} for image in as_list(images)]
            asked = {"type": "choice", "instructions": question, "choices": [{"value": text} for text in distinct]}
            message = {"role": "user", "content": shown or ""}
            body = {"model": self.endpoint.model, "input": [message], "questions": [asked]}
            reply = self.endpoint.post("decisions", body, len(question) + sum(map(len, distinct)), len(shown))
        except UserError as error:
            return AgentError(str(error))
        except AgentError as error:
            return error
        try:
            found = [one["logprob"] / one["tokens"] for one in reply["answers"][0]["probabilities"]]
            return distinct[max(range(len(distinct)), key=found.__getitem__)]
        except (LookupError, TypeError, ZeroDivisionError):
            return AgentError(f"{self.endpoint.name}: does not say how likely each answer is; is it an older `minigpt4 serve`?")

    def body(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as the endpoint names them. Raises UserError where it has no such setting."""
        own = sorted(set(settings) - _EVERYWHERE)
        if own and not self.ours:
            raise UserError(f"{self.endpoint.name}: {', '.join(own)}: only `minigpt4 serve` has that; leave it out")
        body = {name: value for name, value in settings.items() if name not in ("max_new_tokens", "do_sample")}
        if "max_new_tokens" in settings:
            body["max_tokens"] = settings["max_new_tokens"]
        if settings.get("do_sample") is False or (not self.ours and settings.get("do_sample") is None):
            narrowed = (
                settings.get("do_sample") is None and settings.get("top_p", 1) < 1
            )  # as on a folder, that asks for sampling
            body.setdefault("temperature", float(narrowed))
        elif settings.get("do_sample"):
            body.setdefault("temperature", 1.0)
        return body
