"""Whether there may be a GPU, asked of the drivers: torch takes a second to be imported."""

import ctypes
import sys
from pathlib import Path


def may_have_gpu() -> bool:
    """Whether torch may find a GPU here that it would rather use than the CPU; in doubt, yes."""
    return (Path("/dev/kfd").exists() or _nvidia()) and not _torch_is_for_cpus()


def _nvidia() -> bool:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _torch_is_for_cpus() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False
