"""Ten minutes of everything that clients should not do, to a running server.

    python tests/soak.py [--model FOLDER] [--seconds 600] [--schemathesis ENVIRONMENT/bin/st]

Starts `minigpt4 serve` (a tiny random system when no model is named) and lets them loose on it together: clients that read or
send a few bytes at a time, or leave in the middle; bodies that are no JSON, nested a hundred thousand deep, or full of what no
field takes; images that promise four thousand million pixels, are cut off, or are none; schemathesis, where it is installed, on
the server's own description of itself; and a client that asks in earnest and holds each answer to its first.
Prints what was seen as JSON. The exit status is 1 if the server answered with a status of 500 and above (503 in time of need
excepted), an answer differed or did not come, memory grew after the first third, or anything was still running in the end.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

import httpx2
from conftest import tiny_folder
from serving import as_bytes, picture, uri, with_image
from test_serve_limits import bomb

GROWTH = 0.10  # of memory after the first third, at most
LONGEST = 60.0  # seconds for an answer asked in earnest


class Soak:
    """One server, those who ask it, and what they saw."""

    def __init__(self, url: str, process: subprocess.Popen, name: str, seconds: float):
        self.url, self.process, self.name = url, process, name
        self.host, self.port = url.removeprefix("http://").split(":")
        self.end = time.monotonic() + seconds
        self.begun, self.memory = time.monotonic(), []
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self.slowest = 0.0
        self.rng = random.Random(0)

    def body(self, **more) -> dict:
        """A question."""
        text = self.rng.choice(("hm?", "[vqa] what?", "[refer] the dog", "Describe it."))
        image = picture((self.rng.randrange(256), 90, 20), (self.rng.randrange(8, 400), self.rng.randrange(8, 400)))
        return {"model": self.name, "messages": [with_image(text, image)], "max_tokens": 24} | more

    async def run(self, *who: tuple[Callable[[], Coroutine], int]) -> None:
        """All of them, so many of each at a time, until time is up."""

        async def again(one: Callable[[], Coroutine]) -> None:
            while time.monotonic() < self.end and self.process.poll() is None:
                try:
                    await one()
                except Exception as error:
                    self.faults.append(f"{one.__name__}: {type(error).__name__} {str(error)[:160]}")
                    await asyncio.sleep(0.2)
                self.done[one.__name__] += 1

        await asyncio.gather(self.watch(), *(again(one) for one, number in who for _ in range(number)))

    async def watch(self) -> None:
        """Memory of the server, every two seconds."""
        while time.monotonic() < self.end and self.process.poll() is None:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            self.memory.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)
            await asyncio.sleep(2)

    # who asks ---------------------------------------------------------------------------------------------------------

    async def earnest(self) -> None:
        """Asks the same again and again: the answer does not change, whatever the others do."""
        fixed = {"model": self.name, "messages": [with_image("what is it?", picture("green", (50, 40)))], "max_tokens": 16}
        begun = time.monotonic()
        async with httpx2.AsyncClient(base_url=self.url, timeout=LONGEST) as client:
            answer = await client.post("/v1/chat/completions", json=fixed | {"temperature": 0})
        if answer.status_code in (429, 503):
            self.done[f"refused with {answer.status_code}"] += 1
            await asyncio.sleep(0.5)
            return
        text = answer.json()["choices"][0]["message"]["content"]
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.first = getattr(self, "first", text)
        if text != self.first:
            self.faults.append(f"earnest: {text!r} where it was {self.first!r}")
        await asyncio.sleep(0.1)

    async def leaves(self) -> None:
        """Goes away at some time of its answer, or before it."""
        stream = self.rng.random() < 0.7
        with contextlib.suppress(httpx2.TimeoutException):
            async with httpx2.AsyncClient(base_url=self.url, timeout=self.rng.uniform(0.02, 1.5)) as client:
                path, more = self.rng.choice(
                    (("/v1/chat/completions", {"n": 2}), ("/v1/chat/completions", {"temperature": 1.5}))
                )
                async with client.stream("POST", path, json=self.body(stream=stream, **more)) as answer:
                    async for _ in answer.aiter_lines():
                        if self.rng.random() < 0.2:
                            return

    async def reads_slowly(self) -> None:
        """Takes its answer a few bytes at a time, and not always to the end."""
        data = json.dumps(self.body(stream=True, max_tokens=64, min_new_tokens=64)).encode()
        reader, writer = await asyncio.open_connection(self.host, int(self.port), limit=256)
        try:
            writer.write(self.head(len(data)) + data)
            for _ in range(self.rng.randrange(20, 200)):
                if not await asyncio.wait_for(reader.read(self.rng.randrange(1, 40)), LONGEST):
                    break
                await asyncio.sleep(0.1)
        finally:
            writer.close()

    async def writes_slowly(self) -> None:
        """Sends a body a byte at a time, and gives up."""
        _, writer = await asyncio.open_connection(self.host, int(self.port))
        try:
            writer.write(self.head(10_000))
            for _ in range(self.rng.randrange(5, 80)):
                writer.write(b" ")
                await asyncio.sleep(0.1)
        finally:
            writer.close()

    async def bombs(self) -> None:
        """Images and bodies that are more than they seem, or nothing at all."""
        wide = base64.b64encode(bomb(65_000, 65_000)).decode()
        whole = as_bytes(picture("red", (300, 300)), "JPEG")
        urls = (
            f"data:image/png;base64,{wide}",
            f"data:image/jpeg;base64,{base64.b64encode(whole[: self.rng.randrange(len(whole))]).decode()}",
            f"data:image/png;base64,{base64.b64encode(self.rng.randbytes(5000)).decode()}",
            "data:image/png;base64,!!!!",
            "file:///etc/passwd",
            "http://127.0.0.1:1/a.png",
        )
        image = {"type": "image_url", "image_url": {"url": self.rng.choice(urls)}}
        several = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri()}}] * 40}
        depth = self.rng.choice((100, 1000, 100_000))
        bodies = (
            json.dumps({"model": self.name, "messages": [{"role": "user", "content": [image]}]}),
            json.dumps({"model": self.name, "messages": [several]}),
            json.dumps({"model": self.name, "messages": [{"role": "user", "content": "word " * 60_000}]}),
            '{"model":' + "[" * depth + "]" * depth + "}",
            '{"model": "\\ud800", "messages": [{"role": "user", "content": "\\ud800\\u0000"}]}',
            '{"model": 1e999, "temperature": NaN}',
            self.rng.randbytes(300),
            b"",
        )
        path = self.rng.choice(
            ("/v1/chat/completions", "/v1/responses", "/v1/decisions", "/v1/dialogues", "/v1/images/convert")
        )
        async with httpx2.AsyncClient(base_url=self.url, timeout=LONGEST) as client:
            kind = {"Content-Type": self.rng.choice(("application/json", "application/octet-stream", "text/plain"))}
            answer = await client.post(path, content=self.rng.choice(bodies), headers=kind)
            if answer.status_code < 400 and not answer.is_success:
                self.faults.append(f"bombs: {path} answered {answer.status_code}")

    async def decides(self) -> None:
        """Uses the other addresses as they are meant, in between."""
        content = [{"type": "input_image", "image_url": uri(picture("blue", (60, 60)))}]
        shown = [{"role": "user", "content": content}]
        asked = [{"type": "predicate", "name": "a", "instructions": "Is it blue?"}]
        async with httpx2.AsyncClient(base_url=self.url, timeout=LONGEST) as client:
            await client.post("/v1/decisions", json={"model": self.name, "input": shown, "questions": asked})
            await client.post("/v1/responses", json={"model": self.name, "input": shown, "max_output_tokens": 8})
            await client.get("/v1/models")
            await client.get("/metrics")
        await asyncio.sleep(0.2)

    def head(self, length: int) -> bytes:
        """Of a request by hand."""
        lines = ("POST /v1/chat/completions HTTP/1.1", f"Host: {self.host}", "Content-Type: application/json")
        return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()

    def fuzzed(self, command: str | None) -> Callable[[], Coroutine]:
        """Schemathesis, with another seed each time."""

        async def schemathesis() -> None:
            left = self.end - time.monotonic()
            if command is None or left < 20:
                await asyncio.sleep(min(left, 2))
                return
            options = f"--checks not_a_server_error --request-timeout {LONGEST} --max-examples 60 --no-color --no-shrink"
            with tempfile.TemporaryDirectory() as folder:
                child = await asyncio.create_subprocess_exec(
                    *(command, "run", f"{self.url}/openapi.json", *options.split(), "--continue-on-failure"),
                    *("--seed", str(self.done["schemathesis"] + 1), "--max-time", str(int(min(left - 10, 150)))),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    cwd=folder,
                )
                said = (await child.communicate())[0].decode(errors="replace")
            self.done["cases of schemathesis"] += sum(map(int, re.findall(r"(\d+) generated", said)))
            if child.returncode:
                self.faults.append(f"schemathesis: {said[-1500:]}")

        return schemathesis


def served(url: str) -> tuple[Counter[str], dict[str, float]]:
    """Responses by status, and gauges, as the server itself counts them."""
    text, statuses = httpx2.get(f"{url}/metrics", timeout=LONGEST).text, Counter()
    for path, status, number in re.findall(
        r'^minigpt4_http_responses_total\{path="([^"]*)",status="(\d+)"\} (\S+)', text, re.MULTILINE
    ):
        statuses[status] += int(float(number)) if path != "/ready" else 0  # it was asked until it was
    gauges = {name: float(value) for name, value in re.findall(r"^minigpt4_(queued|running)\w* (\S+)", text, re.MULTILINE)}
    return statuses, gauges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a tiny random system when not given")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--schemathesis", metavar="ST", help="its command; not run when not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+") as log:
        model = given.model or str(tiny_folder(Path(folder) / "tiny") or Path(folder) / "tiny")
        command = [sys.executable, "-m", "minigpt4", "serve", "--model", model, "--name", "soaked", "--port", "0"]
        process = subprocess.Popen([*command, "--seconds", "30", "--page"], stderr=log, env=os.environ)
        try:
            url = None
            while url is None or httpx2.get(f"{url}/ready").status_code != 200:
                time.sleep(0.2)
                assert process.poll() is None, Path(log.name).read_text()
                found = re.search(r"http://127.0.0.1:\d+", Path(log.name).read_text())
                url = found and found[0]
            soak = Soak(url, process, "soaked", given.seconds)
            who = [(soak.earnest, 2), (soak.leaves, 8), (soak.reads_slowly, 4), (soak.writes_slowly, 4), (soak.bombs, 3)]
            asyncio.run(soak.run(*who, (soak.decides, 1), (soak.fuzzed(given.schemathesis), 1)))
            deadline = time.monotonic() + LONGEST
            while any((after := served(url))[1].values()) and time.monotonic() < deadline:
                time.sleep(0.5)
            statuses, gauges = after
            process.terminate()
            ended = process.wait(LONGEST)
        finally:
            process.kill()
        traces = Counter(
            re.findall(r"^Traceback.*?^(\w[\w.]*(?:: [^\n]*)?)$", Path(log.name).read_text(), re.MULTILINE | re.DOTALL)
        )
    third = len(soak.memory) // 3
    before, later = max(soak.memory[: third + 1]), max(soak.memory[third + 1 :], default=0.0)
    wrong = {status: number for status, number in statuses.items() if status >= "500" and status != "503"}
    still = {name: value for name, value in gauges.items() if value}
    found = {
        "seconds": round(time.monotonic() - soak.begun),
        "done": soak.done,
        "statuses": dict(sorted(statuses.items())),
        "slowest answer in earnest, s": round(soak.slowest, 1),
        "memory, MB: first third and later, at most": [round(before), round(later)],
        "still there in the end": still,
        "tracebacks in the log": traces,
        "faults": [f"{number} times {fault}" for fault, number in Counter(soak.faults).most_common(8)],
        "exit status of the server": ended,
    }
    print(json.dumps(found, indent=1))
    sys.exit(bool(wrong or soak.faults or still or traces or ended not in (0, -15) or later > before * (1 + GROWTH)))


if __name__ == "__main__":
    main()
