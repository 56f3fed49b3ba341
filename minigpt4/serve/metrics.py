"""What a monitoring system (Prometheus) is told."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..engine.completion import Completion
from ..engine.scheduler import Stats

_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_GAUGES = {"waiting": "Requests in the engine's queue", "running": "Answers that are being written"}
_COUNTERS = {
    "requests": "Requests that the engine took",
    "cancelled": "Answers that were cancelled",
    "prompt_tokens": "Tokens of prompts",
    "cached_tokens": "Tokens of prompts that were known from earlier requests",
    "generated_tokens": "Tokens of answers",
    "images_encoded": "Images that went through the vision encoder",
    "images_known": "Images that were known from earlier requests",
}


class Metrics:
    """Counts and times of one server.

    Args:
        stats: the engine's account; None before there is an engine.
    """

    def __init__(self, stats: Callable[[], Stats | None]):
        self.registry = CollectorRegistry()
        self.registry.register(_EngineStats(stats))
        self.responses = Counter(
            "minigpt4_http_responses", "HTTP responses by address and status", ["path", "status"], registry=self.registry
        )
        self.in_flight = Gauge(
            "minigpt4_http_requests_in_flight", "HTTP requests that are being answered", registry=self.registry
        )
        self.first_token = Histogram(
            "minigpt4_time_to_first_token_seconds",
            "From a request to its first token",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.total = Histogram(
            "minigpt4_request_seconds", "From a request to the end of its answer", buckets=_SECONDS, registry=self.registry
        )
        self.speed = Histogram(
            "minigpt4_answer_tokens_per_second",
            "Tokens per second of one answer, after its first",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=self.registry,
        )

    def finished(self, done: Sequence[Completion]) -> None:
        """A request was answered."""
        for one in done:
            self.total.observe(one.timings.total)
            if one.timings.first_token:
                self.first_token.observe(one.timings.first_token)
            if one.timings.decoding and one.generated_tokens > 1:
                self.speed.observe((one.generated_tokens - 1) / one.timings.decoding)

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self.registry)


class _EngineStats(Collector):
    """The engine's own account, read when it is asked for."""

    def __init__(self, stats: Callable[[], Stats | None]):
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats() or Stats()
        for name, help in _GAUGES.items():
            yield GaugeMetricFamily(f"minigpt4_{name}", help, getattr(stats, name))
        for name, help in _COUNTERS.items():
            yield CounterMetricFamily(f"minigpt4_{name}", help, getattr(stats, name))
