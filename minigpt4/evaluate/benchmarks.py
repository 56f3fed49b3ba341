"""All benchmarks whose rows are asked one by one, by name."""

from . import captions, detection, grounding, identify, refer, vsr
from .benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (captions, refer, detection, grounding, identify, vsr)
}
"""By the name of the command and of the task where there is one of that name."""
