"""All benchmarks whose rows are asked one by one, by name."""

from . import (
    advanced,
    aokvqa,
    captions,
    chair,
    choice,
    detection,
    failures,
    gqa,
    grounding,
    hateful_memes,
    identify,
    nocaps,
    pope,
    refer,
    textvqa,
    vizwiz,
    vqa,
    vqav2,
    vsr,
)
from .base import Benchmark

_OF_FILES = [module.BENCHMARK for module in (captions, failures, advanced, vqa, refer, identify, grounding, detection, vsr)]
_OF_FOLDERS = [module.BENCHMARK for module in (gqa, vizwiz, aokvqa, textvqa, nocaps, hateful_memes, pope)]
_SEVERAL = [benchmark for module in (vqav2, choice, chair) for benchmark in module.BENCHMARKS]

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in [*_OF_FILES, *_OF_FOLDERS, *_SEVERAL]}
"""By the name of the command; those of the six tasks are called like the task."""
OFFICIAL = {name: benchmark for name, benchmark in BENCHMARKS.items() if benchmark.files}
"""Those that read a folder of official files: `prepare` looks through it."""
