"""vLLM with our plugin beside our own engine: the same questions about the same pictures, token by token, and how fast.

    minigpt4 export FOLDER
    python benchmarks/beside_vllm.py FOLDER --vllm VLLM_ENVIRONMENT/bin/python [-- further options of vLLM's server]

Starts vLLM's server (an environment of its own: docs/serving.md), asks it ten questions about the pictures of docs/images with
the official client, streamed, and asks our engine the same. Then it sends what must not end a server: a typed ``<ImageHere>``,
a broken image, a client that leaves. Last, one question, one after the other and all at once, about pictures that neither has
seen. Prints what differs; the exit status is 1 if anything does.
"""

import argparse
import base64
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
from PIL import Image

from minigpt4.engine.completion import Request
from minigpt4.engine.params import SamplingParams
from minigpt4.inference.assistant import Assistant, load
from minigpt4.prompt.templates import with_images

PICTURES = Path(__file__).parents[1] / "docs/images"
QUESTIONS = (
    ("astronaut", "[caption] Briefly describe this image."),
    ("astronaut", "[vqa] What is the woman wearing?"),
    ("astronaut", "[refer] the woman"),
    ("camera", "[caption] Briefly describe this image."),
    ("camera", "[vqa] Is there a person?"),
    ("camera", "[detection] person"),
    ("cat", "[caption] Briefly describe this image."),
    ("cat", "What is in this picture?"),
    ("china", "[grounding] please describe this image in details"),
    ("china", "[vqa] What colour is the sky?"),
)
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
OPTIONS = "--max-model-len 1024 --max-num-seqs 64 --enforce-eager --block-size 32 --served-model-name ours".split()


@contextlib.contextmanager
def vllm_server(python: str, folder: str, dtype: str, further: list[str]) -> Iterator[tuple[str, int]]:
    """vLLM's server; gives its address and its process group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--dtype", dtype, "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, *OPTIONS, *further],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=SETTINGS | os.environ,
            start_new_session=True,
        )
        begun, address = time.monotonic(), f"http://127.0.0.1:{port}"
        try:
            while not _answers(f"{address}/health"):
                if process.poll() is not None or time.monotonic() - begun > 900:
                    log.seek(0)
                    sys.exit(f"vLLM does not start:\n{log.read()[-3000:]}")
                time.sleep(0.5)
            print(f"vLLM is up after {time.monotonic() - begun:.0f} s")
            yield address, process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def cpu_seconds(group: int) -> float:
    """What a process group has used so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def content(image: Image.Image, question: str) -> list[dict]:
    return [{"type": "image_url", "image_url": {"url": uri(image)}}, {"type": "text", "text": question}]


def theirs(client: openai.OpenAI, image: Image.Image, question: str, tokens: int) -> tuple[str, list[int], list[int]]:
    """Text, ids of the prompt and ids of the answer, streamed."""
    stream = client.chat.completions.create(
        model="ours",
        messages=[{"role": "user", "content": content(image, question)}],
        max_completion_tokens=tokens,
        stream=True,
        extra_body={"return_token_ids": True},
    )
    text, prompt, ids = "", [], []
    for chunk in stream:
        prompt = prompt or getattr(chunk, "prompt_token_ids", None) or []
        for choice in chunk.choices:
            text += choice.delta.content or ""
            ids += getattr(choice, "token_ids", None) or []
    return text, prompt, ids


def asked(assistant: Assistant, image: Image.Image, question: str, tokens: int) -> Request:
    said = with_images(assistant.processor.plain(question), 1)
    params = SamplingParams(temperature=0, max_new_tokens=tokens)
    return Request(messages=[{"role": "user", "content": said}], images=[image], params=params)


def compare(assistant: Assistant, client: openai.OpenAI, tokens: int) -> int:
    """How many of the questions differ."""
    differ = 0
    for name, question in QUESTIONS:
        image = Image.open(PICTURES / f"{name}.jpg").convert("RGB")
        request = asked(assistant, image, question, tokens)
        (own,) = assistant.engine.generate([request])[0]
        text, prompt, ids = theirs(client, image, question, tokens)
        same_prompt = prompt == assistant.engine.prompt_ids(request.messages, tokens)
        whole = "\ufffd" in own.text + text or text.strip() == own.text  # bytes that are no character are streamed as one likes
        same = same_prompt and tuple(ids) == own.token_ids and whole
        differ += not same
        print(f"{'same' if same else 'DIFFERENT'}  {name}: {question} -> {text.strip()!r}")
        if not same:
            print(f"    ours: {own.text!r} {own.token_ids}; vLLM's ids: {ids}; prompts {'agree' if same_prompt else 'differ'}")
    return differ


def survive(client: openai.OpenAI, address: str) -> int:
    """How many of the things that it must survive it does not."""
    image = Image.open(PICTURES / "cat.jpg").convert("RGB")
    failed = 0

    def check(what: str, fine: bool) -> None:
        nonlocal failed
        failed += not fine
        print(f"{'fine' if fine else 'NOT FINE'}  {what}")

    def status(messages: list[dict]) -> int:
        try:
            client.chat.completions.create(model="ours", messages=messages, max_completion_tokens=4)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    typed = [{"role": "user", "content": content(image, "a <ImageHere> b <ImageHere>")}]
    check("a typed <ImageHere> in a question is words", status(typed) == 200)
    check("... and without an image", status([{"role": "user", "content": "<ImageHere>?"}]) == 200)
    raw = httpx2.post(
        f"{address}/v1/completions", json={"model": "ours", "prompt": "<ImageHere> hm", "max_tokens": 4}, timeout=60
    )
    check(f"... and in a prompt without our template (status {raw.status_code})", raw.status_code in (200, 400))
    broken = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]}]
    check("a broken image is the client's fault", status(broken) == 400)
    with client.chat.completions.create(
        model="ours",
        messages=[{"role": "user", "content": content(image, "Describe.")}],
        stream=True,
        max_completion_tokens=500,
    ) as leaving:
        next(iter(leaving))
    check("it answers afterwards", status([{"role": "user", "content": content(image, "What is it?")}]) == 200)
    return failed


def unseen(number: int, seed: int) -> list[Image.Image]:
    """Pictures that nobody has a cache of: the ones of docs/images, each cut a little differently."""
    whole = [Image.open(PICTURES / f"{name}.jpg").convert("RGB") for name in ("astronaut", "camera", "cat", "china")]
    return [one.crop((i + seed, i // 4, one.width, one.height)) for i, one in zip(range(number), whole * number, strict=False)]


def speed(assistant: Assistant, client: openai.OpenAI, group: int, tokens: int) -> None:
    """Seconds of the clock and of the processor for a question: one after the other, and all at once."""
    for number, workers in ((8, 1), (32, 32)):
        mine, yours = unseen(number, 1 + workers), unseen(number, 100 + workers)
        clock, used = time.monotonic(), time.process_time()
        assistant.engine.generate([asked(assistant, image, "Describe it.", tokens) for image in mine], batch_size=workers)
        own = (time.monotonic() - clock) / number, (time.process_time() - used) / number
        clock, used = time.monotonic(), cpu_seconds(group)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda image: theirs(client, image, "Describe it.", tokens), yours))
        other = (time.monotonic() - clock) / number, (cpu_seconds(group) - used) / number
        print(
            f"{number} questions, {workers} at a time, seconds a question: ours ({assistant.engine.backend.name}) {own[0]:.3f} "
            f"(processor {own[1]:.3f}), vLLM {other[0]:.3f} ({other[1]:.3f}); "
            f"ours / vLLM {own[0] / other[0]:.2f} ({own[1] / other[1]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--vllm", required=True, help="Python of the environment with vLLM and minigpt4")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--no-speed", action="store_true")
    parser.epilog = "Options of vLLM's server may follow, after --."
    ours = sys.argv[1:].index("--") if "--" in sys.argv[1:] else len(sys.argv) - 1  # argparse takes no options behind it
    given, further = parser.parse_args(sys.argv[1 : 1 + ours]), sys.argv[2 + ours :]
    assistant = load(given.folder, dtype=given.dtype)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server is ended with us
    with vllm_server(given.vllm, given.folder, given.dtype, further) as (address, group):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        wrong = compare(assistant, client, given.tokens)
        print(f"{len(QUESTIONS) - wrong} of {len(QUESTIONS)} questions have the same tokens, prompts included")
        wrong += survive(client, address)
        if not given.no_speed:
            speed(assistant, client, group, given.tokens)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
