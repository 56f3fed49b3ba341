"""Enter to the first word of `minigpt4 ask`, by parts, and of `caption` and `chat`: a cold process, a warm cache.

    python benchmarks/startup.py [--rounds 5] [--ways "" "--backend torch"] [--commands ask caption chat]

A way is what is said of the system beside the photo and the question; ways and commands take turns. The whole is measured from
outside, from the start of the process to the first byte of the answer; the parts in a process of their own, which takes the
same path as the command, with torch or without (`inference.quick`). The best of the rounds counts.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "docs/images/cat.jpg"
QUESTION = "What is in this picture?"
COMMANDS = {  # what is given, and what is typed
    "ask": ([str(PHOTO), QUESTION], ""),
    "caption": ([str(PHOTO)], ""),
    "chat": ([str(PHOTO)], f"{QUESTION}\n"),
}
WAYS = ["", "--device cpu", "--backend torch"]  # without torch; ONNX Runtime beneath torch; torch

PARTS = """
import json, sys, time
at = {"interpreter": time.time() - float(sys.argv[1])}
begun = time.time()

def part(name):
    global begun
    at[name] = at.get(name, 0) + time.time() - begun
    begun = time.time()

def timed(owner, name, before, what):
    made = getattr(owner, name)
    def wrapped(*given, **named):
        part(before)
        result = made(*given, **named)
        part(what)
        return result
    setattr(owner, name, wrapped)

from typer.main import get_command
from minigpt4.cli import app
get_command(app)
part("command line")
from minigpt4.cli.options import Backend, Bits, Dtype, System, import_quickly, open_all
images = open_all([sys.argv[2]])
part("numpy, image")
given = json.loads(sys.argv[4])
kinds = {"backend": Backend, "dtype": Dtype, "quantize": Bits}
system = System(**{name: kinds.get(name, str)(value) for name, value in given.items()})
if quick := system.quick(sys.argv[3], {}):
    part("what is prepared")
    import onnxruntime
    import tokenizers
    part("ONNX Runtime, tokenizers")
    from minigpt4.inference import quick_engine as steps
    tokenizers.Tokenizer = type("Tokenizer", (), {"from_file": tokenizers.Tokenizer.from_file})
    timed(steps, "session", "plan", "vision encoder")
    timed(tokenizers.Tokenizer, "from_file", "vision encoder", "tokenizer")
    timed(steps, "LanguageModelSession", "prompt", "language model")
    pieces = quick.stream(images, sys.argv[3])
else:
    import torch
    part("torch")
    import_quickly()
    part("transformers")
    assistant = system.load()
    part("load")
    from minigpt4.engine.completion import Request
    from minigpt4.prompt.templates import with_images
    (image,) = assistant.engine.encode(images)
    part("vision encoder")
    message = {"role": "user", "content": with_images(sys.argv[3], 1)}
    params = assistant.plan(sys.argv[3], {}, streamed=True).params
    pieces = assistant.engine.stream(Request(messages=[message], images=[image], params=params))
next(iter(pieces))
part("prompt and first token")
print(json.dumps(at))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def whole(name: str, way: str) -> tuple[float, float]:
    """Seconds of a command to the first byte and to the end."""
    begun = time.perf_counter()
    given, typed = COMMANDS[name]
    command = [sys.executable, "-m", "minigpt4", name, *given, *way.split()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(typed.encode())
        process.stdin.close()
        process.stdout.read(1)
        first = time.perf_counter() - begun
        process.stdout.read()
    if process.returncode:
        raise SystemExit(process.returncode)
    return first, time.perf_counter() - begun


def parts(way: str) -> dict[str, float]:
    words = way.replace("--", "").split()
    system = json.dumps(dict(zip(words[::2], words[1::2], strict=True)))
    arguments = [str(time.time()), str(PHOTO), QUESTION, system]
    done = subprocess.run([sys.executable, "-c", PARTS, *arguments], capture_output=True, text=True, env=environment())
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=["ask"])
    given = parser.parse_args()
    both = [(name, way) for name in given.commands for way in given.ways]
    for name, way in both:
        whole(name, way)  # everything is prepared, and read once
    wholes = [[whole(name, way) for name, way in both] for _ in range(given.rounds)]
    for number, (name, way) in enumerate(both):
        first, end = map(min, zip(*(each[number] for each in wholes), strict=True))
        print(f"{name} {way}".rstrip() + f": first word after {first:.2f} s, end after {end:.2f} s")
    if "ask" not in given.commands:
        return
    by_parts = [[parts(way) for way in given.ways] for _ in range(given.rounds)]
    for number, way in enumerate(given.ways):
        print(f"ask {way}".rstrip() + ", by parts:")
        for name in by_parts[0][number]:
            print(f"  {name:32} {min(each[number][name] for each in by_parts):.2f}")


if __name__ == "__main__":
    main()
