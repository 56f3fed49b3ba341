"""How many threads to work with, and how they wait: decided here, for every command.

A machine may be shared. Threads for cores that others use, or that wait by turning round and round, slow everybody down: an
image encoder that takes 15 ms took 2 s so.
"""

import math
import os
from pathlib import Path

_WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}


def usable_cores() -> int:
    """Cores that this process may use: ``OMP_NUM_THREADS``, or those it is bound to, as far as its container allows."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if said.isdigit() and int(said) > 0:
        return int(said)
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, _container_limit() or bound))


def _container_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Whole cores of a container's share of processor time; none where it has no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()  # version 2 of control groups
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return math.ceil(share) if share > 0 else None


def wait_quietly() -> None:
    """Let threads sleep while there is nothing to do. To be called before torch is imported: its threads read this once."""
    for name, value in _WAITING.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
