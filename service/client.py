"""A client of the service: needs httpx and nothing else of FC7, so this file alone can be copied to another machine."""

import base64
import operator
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from numbers import Integral
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias

import httpx

Photograph: TypeAlias = str | os.PathLike[str] | bytes  # a file's path, or its content
Query: TypeAlias = Photograph | int | Iterable[float]  # or an item's id, or a feature: a sequence or a NumPy array
Json: TypeAlias = dict[str, Any]
_NOTHING: tuple[Any, ...] = ()

LONGEST_WAIT_S = 30.0
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout)
_NO_ANSWER = (*_NOT_CONNECTED, httpx.NetworkError, httpx.RemoteProtocolError)


class FC7ServiceError(Exception):
    """An answer that is an error; its text is the service's own and names the field and the value."""

    def __init__(self, status: int, detail: str, problem: Json) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problem = status, detail, problem


class FC7:
    """One service, by its address and, for what changes the index, its key.

    An answer 503 and a connection that fails are tried again, `attempts` times in all, after the seconds of `Retry-After` or else
    a random part of 0.5, 1, 2, ... 30 s; `add` and `remove` are sent again only where nothing had arrived. Methods raise
    FC7ServiceError for an answer that is an error, httpx.TransportError where none came. One of several photographs or queries
    that is wrong has `error`, a problem, in its own result; a single one's is raised.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        timeout_s: float = 30.0,
        attempts: int = 5,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {b"Authorization": b"Bearer " + key.encode()} if key else None
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s, transport=transport)
        self._attempts, self._sleep = attempts, sleep

    def __enter__(self) -> "FC7":
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def classify(self, *photographs: Photograph, views: int = 1, top: int = 5) -> list[Json]:
        """For each photograph its `name` and its `top` most probable `classes`; `views` is 1, or 10 for the paper's average."""
        params = {"views": views, "top": top}
        return list(self._send("POST", "/classify", params=params, files=_files(photographs))["results"])

    def neighbors(
        self,
        *queries: Query,
        like: Iterable[Query] = _NOTHING,
        unlike: Iterable[Query] = _NOTHING,
        k: int = 10,
        mode: str | None = None,
        label: str | Iterable[str] | None = None,
        exclude_label: str | Iterable[str] | None = None,
        path_prefix: str | None = None,
        added_after: datetime | str | None = None,
        added_before: datetime | str | None = None,
        max_distance: float | None = None,
        radius: int | None = None,
        columns: str | int | None = None,
        cursor: str | None = None,
    ) -> list[Json]:
        """For each query its `name`, the `k` `neighbors` nearest to it, and `next`, the `cursor` of those that follow.

        All of `like` together are one more query, the last: neighbours are like these, and unlike those of `unlike`.
        Neighbours have the `label`, or any of several, none of `exclude_label`, and a path that begins with `path_prefix`. They
        were added at `added_after` or later, and before `added_before`: times with their zone, as datetime or in ISO 8601.
        Distances are by the index's metric, `info()["index"]["metric"]`, or in bits in the modes "code" and "ball". What they
        mean is each neighbour's `percentile` among random pairs, and `same_class`, the probability of the query's class; both are
        None where the index is not calibrated; see `calibration`. `columns` is 0 or 1 to compare that column's half of the
        features alone.
        """
        filters = _filters(label, exclude_label, path_prefix, added_after, added_before)
        params = _given(k=k, mode=mode, **filters, max_distance=max_distance, radius=radius, columns=columns, cursor=cursor)
        inputs = [_input(position, query) for position, query in enumerate(queries)]
        given = {"like": [*map(_example, like)], "unlike": [*map(_example, unlike)]}
        if examples := {field: those for field, those in given.items() if those}:
            inputs.append(examples)
        return list(self._send("POST", "/neighbors", params=params, json={"inputs": inputs})["results"])

    def compare(self, query: Photograph | int, k: int = 10) -> Json:
        """The `k` neighbours of a photograph or an item by every way: `ways`, of which each has `neighbors` or a `reason`."""
        if isinstance(query, int | Integral):
            return self._send("POST", "/compare", params={"k": k, "id": int(query)})
        return self._send("POST", "/compare", params={"k": k}, files=_files([query]))

    def pages(self, *query: Query, k: int = 100, **options: Any) -> Iterator[list[Json]]:
        """All neighbours of one query, or of `like` and `unlike`, `k` at a time; the other options are those of `neighbors`."""
        again, cursor = _again(options), None
        while True:
            [result] = self.neighbors(*query, k=k, cursor=cursor, **again)
            yield result["neighbors"]
            if (cursor := result["next"]) is None:
                return

    def activations(self, query: Photograph | SupportsIndex, layer: str = "conv1", top: int = 8) -> Json:
        """What the units of a layer say of a photograph or an item: `columns`, each with the `top` units that are `strongest`."""
        return self._about("/activations", query, layer=layer, top=top)

    def views(self, query: Photograph | SupportsIndex, top: int = 3) -> Json:
        """The `top` most probable `classes` of a photograph or an item by each of the paper's ten `views`, and by their mean."""
        return self._about("/views", query, top=top)

    def occlusion(self, query: Photograph | SupportsIndex, label: str | None = None) -> Json:
        """By how much the probability of a class, or of the most probable, falls when parts are covered: a `heat` map."""
        return self._about("/occlusion", query, **{"class": label})

    def explain(self, query: Photograph | SupportsIndex, neighbor: int) -> Json:
        """Which parts of a photograph or an item, `query`, and of the item `neighbor` bring the two together: heat maps."""
        return self._about("/explain", query, neighbor=neighbor)

    def duplicates(
        self,
        k: int = 10,
        label: str | Iterable[str] | None = None,
        exclude_label: str | Iterable[str] | None = None,
        path_prefix: str | None = None,
        added_after: datetime | str | None = None,
        added_before: datetime | str | None = None,
        cursor: str | None = None,
    ) -> Json:
        """`k` groups of near-duplicates, largest first, as `python -m indexer.duplicates` last found them: `groups`, and how.

        Each has `items`, the largest photograph first, of which filters leave out those that do not pass. `next` is the `cursor`
        of the groups that follow.
        """
        filters = _filters(label, exclude_label, path_prefix, added_after, added_before)
        return self._send("GET", "/duplicates", params=_given(k=k, **filters, cursor=cursor))

    def duplicates_pages(self, k: int = 100, **options: Any) -> Iterator[list[Json]]:
        """All groups of near-duplicates, `k` at a time at most; the other options are those of `duplicates`."""
        return _pages(self.duplicates, "groups", k=k, **options)

    def labels(self, k: int = 10, cursor: str | None = None) -> Json:
        """`k` of the `labels` in their order, each with how many `items` have it; `next` is the `cursor` of those that follow."""
        return self._send("GET", "/labels", params=_given(k=k, cursor=cursor))

    def labels_pages(self, k: int = 100) -> Iterator[list[Json]]:
        """All labels, `k` at a time."""
        return _pages(self.labels, "labels", k=k)

    def items(
        self,
        k: int = 10,
        label: str | Iterable[str] | None = None,
        exclude_label: str | Iterable[str] | None = None,
        path_prefix: str | None = None,
        added_after: datetime | str | None = None,
        added_before: datetime | str | None = None,
        cursor: str | None = None,
    ) -> Json:
        """`k` of the `items` that pass, in order of their ids; the filters are those of `neighbors`. `of` is how many pass.

        `next` is the `cursor` of the items that follow.
        """
        filters = _filters(label, exclude_label, path_prefix, added_after, added_before)
        return self._send("GET", "/items", params=_given(k=k, **filters, cursor=cursor))

    def items_pages(self, k: int = 100, **options: Any) -> Iterator[list[Json]]:
        """All items that pass, `k` at a time; the other options are those of `items`."""
        return _pages(self.items, "items", k=k, **options)

    def item(self, id: int) -> Json:
        """What the index knows of one item."""
        return self._send("GET", f"/items/{id}")

    def layers(self) -> Json:
        """The `layers` with their columns and units, and by the index's `atlas` the most and the least selective of these."""
        return self._send("GET", "/units")

    def units(self, layer: str, column: int = 0, order: str = "index", start: int = 0, k: int = 48) -> Json:
        """`k` of the `units` of a column, from the `start`-th on, by `order`: "index", "selectivity", "active" or "maximum".

        `next` is the `start` of those that follow.
        """
        return self._send("GET", f"/units/{layer}/{column}", params={"order": order, "start": start, "k": k})

    def unit(self, layer: str, column: int, unit: int) -> Json:
        """One unit: its `activity`, and the `photographs` that excite it most; of conv1 its `kernel` too."""
        return self._send("GET", f"/units/{layer}/{column}/{unit}")

    def invariance(self, query: Photograph | SupportsIndex, pictures: bool = False) -> Json:
        """How far FC7, code and neighbours of a photograph or an item move when it is perturbed: `curves`."""
        return self._about("/invariance", query, pictures=pictures)

    def invariance_report(self) -> Json:
        """How far the collection's do, as `python -m training.invariance` found."""
        return self._send("GET", "/reports/invariance")

    def calibration(self) -> Json:
        """What `python -m indexer.calibrate` measured: how far `same_class` and `percentile` of neighbours can be trusted."""
        return self._send("GET", "/reports/calibration")

    def add(self, *photographs: Photograph, label: str = "") -> list[Json]:
        """Adds photographs to the index: for each its `id`, and whether the same file was `known` already. Needs the key."""
        answer = self._send("POST", "/items", _NOT_CONNECTED, files=_files(photographs), data={"label": label})
        return list(answer["results"])

    def remove(self, id: int) -> None:
        """Removes an item from the index, for good. Needs the key."""
        self._send("DELETE", f"/items/{id}", _NOT_CONNECTED)

    def reload(self) -> Json:
        """Makes the service go over to what its model and index folders hold now. Needs the key."""
        return self._send("POST", "/reload")

    def info(self) -> Json:
        """What is loaded, and with which settings."""
        return self._send("GET", "/info")

    def ready(self) -> bool:
        """Whether the service can be reached and has a model and an index that belong together; asks once."""
        try:
            return self._http.get("/readyz").is_success
        except (*_NO_ANSWER, httpx.TimeoutException):
            return False

    def _about(self, path: str, query: Photograph | SupportsIndex, **options: Any) -> Json:
        """The answer about one photograph, or one item."""
        if isinstance(query, SupportsIndex):
            return self._send("POST", path, params=_given(id=operator.index(query), **options))
        return self._send("POST", path, params=_given(**options), files=_files([query]))

    def _send(self, method: str, path: str, again: tuple[type[Exception], ...] = _NO_ANSWER, **content: Any) -> Json:
        for attempt in range(1, self._attempts):
            after = ""
            try:
                response = self._http.request(method, path, **content)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return _read(response)
                after = response.headers.get("Retry-After", "")
            except again:
                pass
            self._sleep(float(after) if after.isdecimal() else random.uniform(0, min(2**attempt / 4, LONGEST_WAIT_S)))
        return _read(self._http.request(method, path, **content))


def _read(response: httpx.Response) -> Json:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    problem = body if isinstance(body, dict) else {}
    other = f"{response.url} answered {response.status_code} {response.reason_phrase} as no service of FC7 does"
    raise FC7ServiceError(response.status_code, problem.get("detail", other), problem)


def _filters(
    label: str | Iterable[str] | None,
    exclude_label: str | Iterable[str] | None,
    path_prefix: str | None,
    added_after: datetime | str | None,
    added_before: datetime | str | None,
) -> dict[str, Any]:
    return {
        "label": _texts(label),
        "exclude_label": _texts(exclude_label),
        "path_prefix": path_prefix,
        "added_after": _time(added_after),
        "added_before": _time(added_before),
    }


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _again(options: dict[str, Any]) -> dict[str, Any]:
    """Options that can be given again and again."""
    return {
        name: value if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        for name, value in options.items()
    }


def _pages(ask: Callable[..., Json], field: str, **options: Any) -> Iterator[list[Json]]:
    """What `field` of each answer holds, from cursor to cursor."""
    again, cursor = _again(options), None
    while True:
        answer = ask(cursor=cursor, **again)
        yield answer[field]
        if (cursor := answer["next"]) is None:
            return


def _texts(texts: str | Iterable[str] | None) -> list[str] | None:
    return [texts] if isinstance(texts, str) else None if texts is None else list(texts)


def _time(time: datetime | str | None) -> str | None:
    return time.isoformat() if isinstance(time, datetime) else time


def _file(photograph: Photograph, position: int) -> tuple[str, bytes]:
    if isinstance(photograph, bytes):
        return f"input {position}", photograph
    return Path(photograph).name, Path(photograph).read_bytes()


def _files(photographs: Iterable[Photograph]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", _file(photograph, position)) for position, photograph in enumerate(photographs)]


def _example(query: Query) -> Json:
    return {field: value for field, value in _input(0, query).items() if field != "name"}


def _input(position: int, query: Query) -> Json:
    if isinstance(query, str | bytes | os.PathLike):
        name, data = _file(query, position)
        return {"name": name, "image": base64.b64encode(data).decode()}
    if isinstance(query, int | Integral):  # NumPy's too
        return {"id": int(query)}
    return {"vector": [float(value) for value in query]}
