"""Enter to the first word of `minigpt4 ask`, by parts: a cold process, a warm cache.

    python benchmarks/startup.py [--rounds 5] [--backend onnx] [--quantize 8bit]

The whole is measured from outside, from the start of the process to the first byte of the answer; the parts in a process of
their own, which does the same one part at a time. The best of the rounds counts.
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

PARTS = """
import json, sys, time
at = {"interpreter": time.time() - float(sys.argv[1])}
begun = time.time()
def part(name):
    global begun
    at[name] = time.time() - begun
    begun = time.time()
from minigpt4.cli import app
part("command line")
from minigpt4.cli.options import Backend, Bits, System, import_quickly, open_all
images = open_all([sys.argv[2]])
part("image")
import torch
part("torch")
import_quickly()
part("transformers")
given = json.loads(sys.argv[4])
bits = Bits(given["quantize"]) if "quantize" in given else None
system = System(backend=Backend(given["backend"]), quantize=bits).load()
part("load")
from minigpt4.engine.completion import Request
from minigpt4.prompt.templates import with_images
(image,) = system.engine.encode(images)
part("vision encoder")
message = {"role": "user", "content": with_images(sys.argv[3], 1)}
for piece in system.engine.stream(Request(messages=[message], images=[image])):
    break
part("prompt and first token")
print(json.dumps(at))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def whole(options: list[str]) -> tuple[float, float]:
    """Seconds to the first byte and to the end."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "minigpt4", "ask", str(PHOTO), QUESTION, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - begun
        process.stdout.read()
    if process.returncode:
        raise SystemExit(process.returncode)
    return first, time.perf_counter() - begun


def parts(system: dict[str, str]) -> dict[str, float]:
    arguments = [str(time.time()), str(PHOTO), QUESTION, json.dumps(system)]
    done = subprocess.run([sys.executable, "-c", PARTS, *arguments], capture_output=True, text=True, env=environment())
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", nargs="+", default=["torch", "onnx"])
    parser.add_argument("--quantize")
    given = parser.parse_args()
    for backend in given.backend:
        system, options = {"backend": backend}, ["--backend", backend]
        if given.quantize and backend == "onnx":
            system["quantize"], options = given.quantize, [*options, "--quantize", given.quantize]
        whole(options)  # everything is read once
        first, end = map(min, zip(*(whole(options) for _ in range(given.rounds)), strict=True))
        rounds = [parts(system) for _ in range(given.rounds)]
        print(f"backend {backend}: first word after {first:.2f} s, end after {end:.2f} s; by parts:")
        for name in rounds[0]:
            print(f"  {name:24} {min(one[name] for one in rounds):.2f}")


if __name__ == "__main__":
    main()
