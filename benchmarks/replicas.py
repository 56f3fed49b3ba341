"""Replicas that end under load: one is killed, then all are replaced one after the other, while clients go on asking.

    python benchmarks/replicas.py [--model FOLDER] [--clients 8] [--seconds 30] [--tokens 48]

Starts two replicas by Ray Serve and asks them, streamed and not, greedy and seeded, with a client that does not try again by
itself. After a third of the time a replica is killed, after two thirds all are replaced. Each answer is held against the one
that the same question had before, so that one that was begun again, or lacks words, is seen. Prints what was seen; the exit
status is 1 if a request was lost or answered otherwise, or none was on its way when the replica was killed.
"""

import argparse
import asyncio
import json
import logging
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx2
import ray
import uvicorn
from serve_load import ask, questions

from minigpt4.inference.assistant import load
from minigpt4.serve.replicas import deploy, replicated_app
from minigpt4.serve.settings import Allowed, Scale


async def plain(client: httpx2.AsyncClient, body: dict) -> str:
    """The answer, not streamed."""
    answer = await client.post("/v1/chat/completions", json=body | {"stream": False})
    answer.raise_for_status()
    (choice,) = answer.json()["choices"]
    return choice["message"]["content"]


async def work(
    url: str, clients: int, seconds: float, tokens: int, disturb: dict[float, tuple[str, Callable[[], object]]]
) -> Counter:
    bodies, seen = [body | {"min_new_tokens": tokens} for body in questions(12, "replicas", tokens)], Counter()
    async with httpx2.AsyncClient(base_url=url, timeout=300) as client:
        alone = [await plain(client, body) for body in bodies]
        begun, number = time.monotonic(), iter(range(1 << 30))

        async def one() -> None:
            while time.monotonic() - begun < seconds:
                i = next(number)
                body, seen["asked"] = bodies[i % len(bodies)], seen["asked"] + 1
                try:
                    text = (await ask(client, body))[0].strip() if i % 2 else await plain(client, body)
                except Exception as error:
                    print(f"lost: {type(error).__name__} {str(error)[:200]}", flush=True)
                    seen["lost"] += 1
                    continue
                seen["answered"] += 1
                seen["different"] += text != alone[i % len(bodies)]

        async def disturbance() -> None:
            for share, (name, act) in sorted(disturb.items()):
                await asyncio.sleep(max(0.0, begun + share * seconds - time.monotonic()))
                on_their_way = seen["asked"] - seen["answered"] - seen["lost"]
                print(
                    f"{time.monotonic() - begun:.0f} s, {seen['answered']} answered, {on_their_way} on their way: {name}",
                    flush=True,
                )
                await asyncio.to_thread(act)

        await asyncio.gather(disturbance(), *(one() for _ in range(clients)))
    return seen


def kill_one() -> None:
    """The process of one replica, as a machine's fault would."""
    found = [one for one in ray.util.list_named_actors(all_namespaces=True) if one["name"].startswith("SERVE_REPLICA")]
    ray.kill(ray.get_actor(**found[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--tokens", type=int, default=48)
    given = parser.parse_args()

    def loaded():
        return load(given.model, device="cpu")

    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = heard.append
    logging.getLogger("minigpt4.serve.relay").addHandler(listener)
    allowed, begun = Allowed(seconds=60), time.monotonic()
    app = replicated_app("replicas", loaded, Scale(least=2, most=2), allowed=allowed)
    print(f"two replicas after {time.monotonic() - begun:.0f} s", flush=True)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    disturb = {
        1 / 3: ("a replica is killed", kill_one),
        2 / 3: ("all replicas are replaced", lambda: deploy("replicas", loaded, Scale(least=2, most=2), allowed=allowed)),
    }
    try:
        seen = asyncio.run(
            work(f"http://127.0.0.1:{listening.getsockname()[1]}", given.clients, given.seconds, given.tokens, disturb)
        )
    finally:
        server.should_exit = True
        thread.join(90)
        ray.shutdown()
    print(json.dumps(seen))
    again = [record.getMessage() for record in heard if "asking another one" in record.getMessage()]
    print(f"{len(again)} requests were asked again of another replica")
    sys.exit(seen["answered"] != seen["asked"] or seen["different"] > 0 or not again)


if __name__ == "__main__":
    main()
