"""All benchmarks whose rows are asked one by one, by name."""

from . import captions, detection, failures, grounding, identify, refer, vqa, vsr
from .base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (captions, failures, vqa, refer, identify, grounding, detection, vsr)
}
"""By the name of the command; those of the six tasks are called like the task."""
