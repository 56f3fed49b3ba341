"""Files and folders that are there whole or not at all.

What is written goes to a name beside its place, is brought to the disk, and is moved to its place in one act. A failure leaves
what was there before, and nothing else.
"""

import contextlib
import glob
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """The name of a file to write to, which takes the place of `path` at the end.

    Raises:
        UserError: it cannot be written: a full disk, a folder that is read-only or not there.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{threading.get_native_id()}.{os.getpid()}.part")
    try:
        with saying(path):
            _tidy(path)
            yield part
            _make_readable(part)
            sync(part)
            os.replace(part, path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """A text file, in UTF-8 with line feeds. Raises UserError as `whole_file` does."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_folder(folder: Path, work: Path, write: Callable[[Path], None]) -> None:
    """A folder with what `write` puts into the one that it is given, made at `work` beside its place.

    An older folder of its name is removed when the new one is on disk. Errors pass; `work` is removed then.
    """
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write(work)
        for path in work.rglob("*"):
            if path.is_file():
                _make_readable(path)
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(work, folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextmanager
def saying(path: str | os.PathLike, kept: str = "") -> Iterator[None]:
    """Says in one line what could not be written.

    Args:
        kept: what is not lost, for the message.

    Raises:
        UserError: in place of what the system, or safetensors, says of a disk.
    """
    try:
        yield
    except Exception as error:
        reason = disk_fault(error)
        if reason is None:
            raise
        raise UserError(f"{os.fspath(path)}: cannot be written ({reason}){f'; {kept}' if kept else ''}") from error


def disk_fault(error: BaseException) -> str | None:
    """What an error says of the disk, or None if it is about something else. safetensors and torch have errors of their own."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = " ".join(str(error).split())
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"I/O error: (.*?) \(os error", text)):
        return found[1]
    if isinstance(error, RuntimeError) and ("unexpected pos" in text or "Parent directory" in text):  # torch.save
        return "is the disk full?"
    return None


def _tidy(path: Path) -> None:
    """Remove what a process that was killed has left while it wrote `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = left.name.split(".")[-2]
        if number.isdecimal() and not _runs(int(number)):
            with contextlib.suppress(OSError):
                left.unlink()


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; where that cannot be asked, it does."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _make_readable(path: Path) -> None:
    """Give a file the mode that new files have; safetensors writes files that their owner alone can read."""
    mask = os.umask(0o022)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk, where the system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
