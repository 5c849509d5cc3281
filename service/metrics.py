"""What the service counts and times, for Prometheus."""

from collections.abc import Callable
from typing import Final, Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from training.errors import NotReady

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
Stage = Literal["queue", "decode", "forward", "search", "answer"]
Batched = Literal["forward", "search"]
Reason = Literal[
    "queue_full",
    "deadline",
    "slow",
    "stopping",
    "busy",
    "swapping",
    "too_large",
    "not_an_image",
    "bad_image",
    "bad_value",
    "key",
    "closed",
    "batch_failed",
]
Swap = Literal["swapped", "refused"]
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The figures of one application, in a registry of its own. Its methods may be called from any thread.

    Everything but requests is there from the beginning, at zero: a rate of what has not happened yet is 0, not missing.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        seconds = Histogram("fc7_stage_seconds", "Time in a stage of the work", ["stage"], registry=registry, buckets=_SECONDS)
        sizes = Histogram(
            "fc7_batch_size", "Views in a forward pass, queries in a search", ["stage"], registry=registry, buckets=_SIZES
        )
        rejects = Counter("fc7_rejects_total", "Requests or images turned away", ["reason"], registry=registry)
        swaps = Counter("fc7_swaps_total", "Models and indexes taken into use, or not", ["outcome"], registry=registry)
        self._stages = {stage: seconds.labels(stage) for stage in get_args(Stage)}
        self._batches = {stage: sizes.labels(stage) for stage in get_args(Batched)}
        self._rejects = {reason: rejects.labels(reason) for reason in get_args(Reason)}
        self._swaps = {outcome: swaps.labels(outcome) for outcome in get_args(Swap)}
        self._requests = Counter("fc7_requests_total", "Requests answered", ["method", "path", "status"], registry=registry)
        self._request_seconds = Histogram(
            "fc7_request_seconds", "Time from a request's head to its answer's end", ["path"], registry=registry, buckets=_SECONDS
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests_in_flight = Gauge("fc7_requests_in_flight", "Requests not answered yet", registry=registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

    def stage(self, name: Stage, seconds: float) -> None:
        """Work spent `seconds` in a stage."""
        self._stages[name].observe(seconds)

    def batch(self, stage: Batched, size: int) -> None:
        """A forward pass of `size` views, or a search for `size` queries."""
        self._batches[stage].observe(size)

    def rejected(self, reason: Reason) -> None:
        """A request, or an image of one, was turned away."""
        self._rejects[reason].inc()

    def swapped(self, outcome: Swap) -> None:
        """Another model or index was taken into use, or refused."""
        self._swaps[outcome].inc()

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered. `path` is a route's template, as what clients send would make labels without end."""
        key = (method, path, status)
        children = self._answered.get(key)
        if children is None:
            children = self._requests.labels(*key), self._request_seconds.labels(path)
            self._answered[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def observe_model(self, model: Callable[[], tuple[str, str]]) -> None:
        """At each reading, `model` gives the fingerprint and the profile in use. It may raise NotReady."""

        def figures() -> list[Metric]:
            info = GaugeMetricFamily("fc7_model_info", "The model in use", labels=["fingerprint", "profile"])
            info.add_metric(model(), 1)
            return [info]

        self._registry.register(_Reading(figures))

    def observe_index(self, index: Callable[[], tuple[int, int]]) -> None:
        """At each reading, `index` gives the version in use and its number of items. It may raise NotReady."""

        def figures() -> list[Metric]:
            version, items = index()
            return [
                GaugeMetricFamily("fc7_index_version", "Version of the index in use", version),
                GaugeMetricFamily("fc7_index_items", "Items in the index in use", items),
            ]

        self._registry.register(_Reading(figures))

    def text(self) -> bytes:
        """Everything in Prometheus' text format, whose media type is CONTENT_TYPE."""
        return generate_latest(self._registry)


def known_method(method: str) -> str:
    """The method, or "other" for one that HTTP does not define: clients can make up any."""
    return method if method in _METHODS else "other"


class _Reading(Collector):
    def __init__(self, figures: Callable[[], list[Metric]]) -> None:
        self._figures = figures

    def collect(self) -> list[Metric]:
        try:
            return self._figures()
        except NotReady:
            return []
