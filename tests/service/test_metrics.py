"""What Prometheus reads, as its own parser understands it."""

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics, known_method
from training.errors import NotReady

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(metrics: Metrics) -> Samples:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of(samples: Samples, name: str, labels: Mapping[str, str] | None = None) -> float:
    return samples[name, frozenset((labels or {}).items())]


def labels_of(samples: Samples, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for sample, labels in samples if sample == name}


def test_everything_that_may_happen_is_there_at_zero_before_it_does() -> None:
    samples = read(Metrics())
    assert labels_of(samples, "fc7_stage_seconds_count", "stage") == {"queue", "decode", "forward", "search", "answer"}
    assert labels_of(samples, "fc7_batch_size_count", "stage") == {"forward", "search"}
    assert labels_of(samples, "fc7_swaps_total", "outcome") == {"swapped", "refused"}
    refusals = {"too_large", "not_an_image", "bad_image", "bad_value", "key"}
    pressure = {"queue_full", "deadline", "slow", "stopping", "busy", "swapping", "closed", "batch_failed"}
    assert labels_of(samples, "fc7_rejects_total", "reason") == refusals | pressure
    assert of(samples, "fc7_requests_in_flight") == 0
    assert {value for (name, _), value in samples.items() if name.startswith("fc7_") and not name.endswith("_created")} == {0}


def test_a_stage_is_counted_in_every_bucket_from_its_seconds_on() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.03, 0.03, 60.0):
        metrics.stage("forward", seconds)
    samples = read(metrics)
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in samples.items()
        if name == "fc7_stage_seconds_bucket" and dict(labels)["stage"] == "forward"
    }
    assert (min(buckets), sorted(buckets)[-2:]) == (0.0005, [10.0, float("inf")])
    assert buckets == {le: sum(seconds <= le for seconds in (0.0004, 0.03, 0.03, 60.0)) for le in buckets}
    assert of(samples, "fc7_stage_seconds_sum", {"stage": "forward"}) == pytest.approx(60.0604)
    assert of(samples, "fc7_stage_seconds_count", {"stage": "queue"}) == 0


def test_a_full_batch_and_a_single_one_are_told_apart() -> None:
    metrics = Metrics()
    metrics.batch("forward", 1)
    metrics.batch("forward", 32)
    metrics.batch("search", 3)
    samples = read(metrics)
    forward = {le: of(samples, "fc7_batch_size_bucket", {"stage": "forward", "le": le}) for le in ("1.0", "16.0", "32.0", "+Inf")}
    assert forward == {"1.0": 1, "16.0": 1, "32.0": 2, "+Inf": 2}
    assert of(samples, "fc7_batch_size_sum", {"stage": "search"}) == 3


def test_rejects_swaps_and_requests_count_up_by_their_labels() -> None:
    metrics = Metrics()
    metrics.rejected("queue_full")
    metrics.rejected("queue_full")
    metrics.swapped("refused")
    metrics.answered("GET", "/items/{id}", 200, 0.004)
    metrics.answered("GET", "/items/{id}", 200, 0.004)
    metrics.answered("GET", "/items/{id}", 404, 0.001)
    samples = read(metrics)
    assert of(samples, "fc7_rejects_total", {"reason": "queue_full"}) == 2
    assert of(samples, "fc7_rejects_total", {"reason": "deadline"}) == 0
    assert of(samples, "fc7_swaps_total", {"outcome": "refused"}) == 1
    assert of(samples, "fc7_requests_total", {"method": "GET", "path": "/items/{id}", "status": "200"}) == 2
    assert of(samples, "fc7_requests_total", {"method": "GET", "path": "/items/{id}", "status": "404"}) == 1
    assert of(samples, "fc7_request_seconds_sum", {"path": "/items/{id}"}) == pytest.approx(0.009)


def test_model_and_index_are_read_when_prometheus_asks() -> None:
    metrics, version = Metrics(), 3
    metrics.observe_model(lambda: ("5a0c0f", "paper"))
    metrics.observe_index(lambda: (version, 100 * version))
    samples = read(metrics)
    assert of(samples, "fc7_model_info", {"fingerprint": "5a0c0f", "profile": "paper"}) == 1
    assert (of(samples, "fc7_index_version"), of(samples, "fc7_index_items")) == (3, 300)
    version = 4
    samples = read(metrics)
    assert (of(samples, "fc7_index_version"), of(samples, "fc7_index_items")) == (4, 400)


def test_without_a_model_and_an_index_there_are_no_figures_of_them() -> None:
    def missing() -> tuple[int, int]:
        raise NotReady("no index yet")

    metrics = Metrics()
    metrics.observe_index(missing)
    names = {name for name, _ in read(metrics)}
    assert "fc7_requests_in_flight" in names
    assert not names & {"fc7_model_info", "fc7_index_version", "fc7_index_items"}


def test_two_applications_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.rejected("key")
    assert of(read(first), "fc7_rejects_total", {"reason": "key"}) == 1
    assert of(read(second), "fc7_rejects_total", {"reason": "key"}) == 0


def test_process_platform_and_garbage_collector_are_there() -> None:
    names = {name for name, _ in read(Metrics())}
    assert {"process_resident_memory_bytes", "python_info", "python_gc_collections_total"} <= names


def test_a_made_up_method_gets_no_label_of_its_own() -> None:
    assert [known_method(method) for method in ("GET", "DELETE", "BREW", "get")] == ["GET", "DELETE", "other", "other"]
