"""Agents and endpoints that say what a script tells them to, the nasty things too."""

import json

import httpx2

from minigpt4.dialogue.agents import AgentError, Reply, Spent


class Scripted:
    """An agent. `say` is a list of replies (or errors), the last one for ever; or a function of the prompt."""

    name = "scripted"

    def __init__(self, say):
        self.say, self.prompts, self.spent = say, [], Spent()

    def answer(self, prompts):
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt):
        self.prompts.append(prompt)
        self.spent.add(requests=1)
        said = self.say(prompt) if callable(self.say) else self.say[min(len(self.prompts), len(self.say)) - 1]
        return said if isinstance(said, AgentError) else Reply(said, 10, len(said.split()))


def completion(text, prompt_tokens=100, generated_tokens=10, **changes):
    """A chat completion as a server sends it."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": generated_tokens}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return httpx2.Response(200, json={"choices": [choice], "usage": usage} | changes)


class Server:
    """What `Endpoint(transport=...)` talks to. Replies are responses, exceptions to raise, or functions of the request."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []
        self.transport = httpx2.MockTransport(self._handle)

    def _handle(self, request):
        self.requests.append(request)
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply(request) if callable(reply) else reply

    def bodies(self):
        return [json.loads(request.content) for request in self.requests]
