"""The Python client: what it sends and how it waits, by a scripted service; what it gives, by a real one on loopback."""

import ast
import base64
import json
import re
import runpy
import shutil
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from indexer.opening import open_store
from service import client
from service.app import create_app
from service.client import FC7, FC7ServiceError
from service.settings import ServiceSettings
from tests import pages
from tests.conftest import encoded, photograph
from tests.service.calls import PHOTO
from training import checkpoint
from training.images.preprocess import ImageLimits, decode

KEY = "secret"
Answer = httpx.Response | Exception
OK = httpx.Response(200, json={"results": []})


class Script:
    """A service that gives these answers in order, and keeps the requests; `waits` are the seconds that the client waited."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, key: str | None = None, attempts: int = 5) -> FC7:
        return FC7("http://fc7", key, attempts=attempts, transport=httpx.MockTransport(self), sleep=self.waits.append)


def busy(**headers: str) -> httpx.Response:
    return httpx.Response(503, headers=headers, json={"status": 503, "detail": "the queue is full"})


CALLS: dict[str, Callable[[FC7], object]] = {
    "classify": lambda fc7: fc7.classify(PHOTO),
    "neighbors": lambda fc7: fc7.neighbors(17),
    "duplicates": lambda fc7: fc7.duplicates(),
    "explain": lambda fc7: fc7.explain(PHOTO, 17),
    "info": lambda fc7: fc7.info(),
    "reload": lambda fc7: fc7.reload(),
    "add": lambda fc7: fc7.add(PHOTO),
    "remove": lambda fc7: fc7.remove(17),
}
CHANGES = ("add", "remove")


@pytest.mark.parametrize("call", CALLS)
def test_a_busy_service_is_asked_again_after_the_seconds_that_it_names(call: str) -> None:
    script = Script(busy(**{"Retry-After": "7"}), busy(**{"Retry-After": "0"}), OK)
    with script.client() as fc7:
        CALLS[call](fc7)
    assert script.waits == [7, 0]
    first, *others = [
        (request.method, request.url, re.sub(rb"\b[0-9a-f]{32}\b", b"", request.content)) for request in script.requests
    ]
    assert others == [first, first]


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_without_seconds_it_waits_a_random_part_of_ever_longer_times(headers: dict[str, str]) -> None:
    waits = []
    for _ in range(30):
        script = Script(*[busy(**headers)] * 8, OK)
        with script.client(attempts=9) as fc7:
            fc7.classify(PHOTO)
        waits.append(script.waits)
    longest = np.array([0.5, 1, 2, 4, 8, 16, 30, 30])
    assert (np.array(waits) <= longest).all()
    assert (np.min(waits, axis=0) < longest / 2).all()
    assert (np.max(waits, axis=0) > longest / 2).all()


@pytest.mark.parametrize("call", CALLS)
def test_what_never_connected_is_sent_again(call: str) -> None:
    script = Script(httpx.ConnectError("refused"), httpx.ConnectTimeout("timed out"), OK)
    with script.client() as fc7:
        CALLS[call](fc7)
    assert len(script.waits) == 2


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("lost", [httpx.ReadError("reset"), httpx.RemoteProtocolError("disconnected")])
def test_where_the_answer_was_lost_only_what_changes_nothing_is_sent_again(call: str, lost: Exception) -> None:
    script = Script(lost, OK)
    with script.client() as fc7:
        if call in CHANGES:
            with pytest.raises(type(lost)):
                CALLS[call](fc7)
        else:
            CALLS[call](fc7)
    assert len(script.requests) == (1 if call in CHANGES else 2)


def test_the_last_attempt_gives_what_it_gave() -> None:
    script = Script(*[busy()] * 3)
    with script.client(attempts=3) as fc7, pytest.raises(FC7ServiceError, match=r"^the queue is full$") as failed:
        fc7.classify(PHOTO)
    assert (failed.value.status, failed.value.detail, failed.value.problem["status"]) == (503, "the queue is full", 503)
    assert (len(script.requests), len(script.waits)) == (3, 2)
    script = Script(*[httpx.ConnectError("refused")] * 3)
    with script.client(attempts=3) as fc7, pytest.raises(httpx.ConnectError, match="refused"):
        fc7.classify(PHOTO)
    assert (len(script.requests), len(script.waits)) == (3, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 415, 422, 500])
def test_every_other_error_is_raised_at_once_with_the_problems_detail(status: int) -> None:
    problem = {"status": status, "detail": "k must be at most 1000, got 2000"}
    script = Script(httpx.Response(status, json=problem))
    with script.client() as fc7, pytest.raises(FC7ServiceError, match=r"^k must be at most 1000, got 2000$") as failed:
        fc7.neighbors(1)
    assert (failed.value.status, failed.value.problem, script.waits) == (status, problem, [])


@pytest.mark.parametrize(
    "answer", [httpx.Response(502, text="<h1>Bad Gateway</h1>"), httpx.Response(200, text="hello"), httpx.Response(307)]
)
def test_an_answer_of_something_else_than_the_service_is_an_error_that_names_it(answer: httpx.Response) -> None:
    with Script(answer).client() as fc7, pytest.raises(FC7ServiceError, match=rf"http://fc7/info answered {answer.status_code}"):
        fc7.info()


def test_a_slow_answer_is_not_asked_for_twice() -> None:
    script = Script(httpx.ReadTimeout("timed out"))
    with script.client() as fc7, pytest.raises(httpx.ReadTimeout):
        fc7.classify(PHOTO)
    assert script.waits == []


def test_queries_go_in_the_order_given_with_what_was_asked_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    script = Script(OK, OK, OK, OK, OK)
    with script.client() as fc7:
        vector = np.array([0.5, -1, 1e-3], np.float32)
        fc7.neighbors(tmp_path / "a.jpg", 17, PHOTO, vector, [0, 2.5], np.array([3])[0], str(tmp_path / "a.jpg"), k=3)
        fc7.neighbors(1, mode="ball", label="", max_distance=2.5, radius=0, cursor="c")
        fc7.neighbors(1, label=("red", "é&"), exclude_label="a", path_prefix="b/%")
        fc7.neighbors(1, label=iter("x"), exclude_label=["a", "b"], added_before="2026-11-26T10:00Z")
        fc7.neighbors(1, added_after=datetime(2026, 11, 26, 12, tzinfo=timezone(timedelta(hours=2))))
    image = base64.b64encode(PHOTO).decode()
    assert json.loads(script.requests[0].content) == {
        "inputs": [
            {"name": "a.jpg", "image": image},
            {"id": 17},
            {"name": "input 2", "image": image},
            {"vector": [0.5, -1, float(np.float32(1e-3))]},
            {"vector": [0, 2.5]},
            {"id": 3},
            {"name": "a.jpg", "image": image},
        ]
    }
    assert script.requests[0].headers["content-type"] == "application/json"
    assert [str(request.url) for request in script.requests] == [
        "http://fc7/neighbors?k=3",
        "http://fc7/neighbors?k=10&mode=ball&label=&max_distance=2.5&radius=0&cursor=c",
        "http://fc7/neighbors?k=10&label=red&label=%C3%A9%26&exclude_label=a&path_prefix=b%2F%25",
        "http://fc7/neighbors?k=10&label=x&exclude_label=a&exclude_label=b&added_before=2026-11-26T10%3A00Z",
        "http://fc7/neighbors?k=10&added_after=2026-11-26T12%3A00%3A00%2B02%3A00",
    ]


def test_examples_are_one_query_more(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    script = Script(OK, OK, OK)
    with script.client() as fc7:
        fc7.neighbors(like=[tmp_path / "a.jpg", 17, PHOTO], unlike=iter([np.array([0.5, 1], np.float32)]))
        fc7.neighbors(3, 4, like=(5,))
        fc7.neighbors(unlike=[5])
    image = base64.b64encode(PHOTO).decode()
    together = {"like": [{"image": image}, {"id": 17}, {"image": image}], "unlike": [{"vector": [0.5, 1]}]}
    assert [json.loads(request.content)["inputs"] for request in script.requests] == [
        [together],
        [{"id": 3}, {"id": 4}, {"like": [{"id": 5}]}],
        [{"unlike": [{"id": 5}]}],
    ]


def test_near_duplicates_are_asked_for_with_filters_and_page_by_page() -> None:
    script = Script(
        httpx.Response(200, json={"groups": [{"size": 3}, {"size": 2}], "next": "c"}),
        httpx.Response(200, json={"groups": [{"size": 2}], "next": None}),
        OK,
        OK,
    )
    with script.client() as fc7:
        assert list(fc7.duplicates_pages(2, label=iter(["red", "blue"]))) == [[{"size": 3}, {"size": 2}], [{"size": 2}]]
        assert fc7.duplicates() == {"results": []}
        fc7.duplicates(3, exclude_label="", path_prefix="a/", added_after="2026-11-26T10:00Z", cursor="d")
    assert [(request.method, str(request.url)) for request in script.requests] == [
        ("GET", "http://fc7/duplicates?k=2&label=red&label=blue"),
        ("GET", "http://fc7/duplicates?k=2&label=red&label=blue&cursor=c"),
        ("GET", "http://fc7/duplicates?k=10"),
        ("GET", "http://fc7/duplicates?k=3&exclude_label=&path_prefix=a%2F&added_after=2026-11-26T10%3A00Z&cursor=d"),
    ]


def test_what_is_asked_about_one_photograph_is_sent_and_about_an_item_is_named() -> None:
    script = Script(OK, OK, OK, OK, OK)
    with script.client() as fc7:
        fc7.explain(3, 17)
        fc7.explain(PHOTO, 17)
        fc7.occlusion(3, label="red")
        fc7.views(3)
        fc7.activations(PHOTO, layer="conv2", top=5)
    sent = [(request.url.path, dict(request.url.params), PHOTO in request.content) for request in script.requests]
    assert sent == [
        ("/explain", {"id": "3", "neighbor": "17"}, False),
        ("/explain", {"neighbor": "17"}, True),
        ("/occlusion", {"id": "3", "class": "red"}, False),
        ("/views", {"id": "3", "top": "3"}, False),
        ("/activations", {"layer": "conv2", "top": "5"}, True),
    ]


def test_labels_items_and_units_are_asked_for_with_what_was_given_and_nothing_more() -> None:
    script = Script(*[OK] * 7)
    with script.client() as fc7:
        fc7.labels(3, cursor="c")
        fc7.items(label=iter(["red", ""]), path_prefix="a/", added_before=datetime(2026, 11, 26, tzinfo=UTC), cursor="d")
        fc7.item(17)
        fc7.layers()
        fc7.units("conv2", 1, order="active", start=48, k=5)
        fc7.unit("fc6", 0, 3)
        fc7.invariance_report()
    assert [(request.method, str(request.url)) for request in script.requests] == [
        ("GET", "http://fc7/labels?k=3&cursor=c"),
        (
            "GET",
            "http://fc7/items?k=10&label=red&label=&path_prefix=a%2F&added_before=2026-11-26T00%3A00%3A00%2B00%3A00&cursor=d",
        ),
        ("GET", "http://fc7/items/17"),
        ("GET", "http://fc7/units"),
        ("GET", "http://fc7/units/conv2/1?order=active&start=48&k=5"),
        ("GET", "http://fc7/units/fc6/0/3"),
        ("GET", "http://fc7/reports/invariance"),
    ]


@pytest.fixture(scope="module")
def looked_into(model: Path, atlas_index: Path) -> Iterator[FC7]:
    """A client of a service of 24 items with a unit atlas."""
    with TestClient(create_app(ServiceSettings(model=model, index=atlas_index))) as service:
        yield FC7("http://testserver", transport=service._transport)


def test_labels_and_items_are_those_of_the_index(looked_into: FC7, atlas_index: Path) -> None:
    known = open_store(atlas_index).items(range(24))
    counts = Counter(item.label for item in known)
    assert {entry["label"]: entry["items"] for entry in looked_into.labels()["labels"]} == counts
    assert [[entry["label"] for entry in page] for page in looked_into.labels_pages(2)] == [["blue", "green"], ["red"]]
    assert looked_into.items(1, label="red")["of"] == counts["red"] == 8
    pages = list(looked_into.items_pages(5, label=iter(["red", "blue"]), path_prefix="train/"))
    assert [len(page) for page in pages] == [5, 5, 5, 1]
    assert [item["path"] for page in pages for item in page] == [item.path for item in known if item.label != "green"]
    assert looked_into.item(5)["path"] == known[5].path
    with pytest.raises(FC7ServiceError, match="no item has the id 99"):
        looked_into.item(99)


def test_units_are_those_of_the_atlas(looked_into: FC7, atlas_index: Path) -> None:
    atlas = open_store(atlas_index).atlas
    assert atlas
    assert {layer["layer"]: layer["units"] for layer in looked_into.layers()["layers"]} == {
        name: layer.units for name, layer in atlas.record.layers.items()
    }
    answer = looked_into.units("conv5", 1, start=2, k=3)
    assert ([unit["unit"] for unit in answer["units"]], answer["next"]) == ([2, 3, 4], 5)
    strongest = looked_into.units("conv5", 1, order="maximum")["units"]
    assert [unit["maximum"] for unit in strongest] == sorted((unit["maximum"] for unit in strongest), reverse=True)
    one = looked_into.unit("conv5", 1, strongest[0]["unit"])
    assert one["photographs"][0]["activation"] == pytest.approx(strongest[0]["maximum"])


def test_what_a_photograph_and_an_item_keep_when_they_are_perturbed(looked_into: FC7) -> None:
    of_photograph, of_item = looked_into.invariance(PHOTO), looked_into.invariance(17, pictures=True)
    assert (of_photograph["id"], of_item["id"]) == (None, 17)
    pictures = [
        {point["picture"] is None for curve in answer["curves"] for point in curve["points"]}
        for answer in (of_photograph, of_item)
    ]
    assert pictures == [{True}, {False}]
    with pytest.raises(FC7ServiceError, match=r"`python -m training\.invariance"):
        looked_into.invariance_report()


def test_one_photograph_is_looked_into(address: str) -> None:
    with FC7(address) as fc7:
        [nearest] = fc7.neighbors(PHOTO, k=1)[0]["neighbors"]
        assert fc7.explain(PHOTO, nearest["id"])["neighbor"]["id"] == nearest["id"]
        assert fc7.occlusion(PHOTO)["class"] == fc7.classify(PHOTO)[0]["classes"][0]["class"]
        assert len(fc7.views(3)["views"]) == 10
        assert [column["column"] for column in fc7.activations(3, "conv2")["columns"]] == [0, 1]


def test_pages_of_examples_go_through_all_but_these(address: str) -> None:
    with FC7(address) as fc7:
        [whole] = fc7.neighbors(like=[3, PHOTO], unlike=[9], k=24)
        pages = list(fc7.pages(like=iter([3, PHOTO]), unlike=iter([9]), k=7, label=iter(["red", "green", "blue"])))
    assert [len(page) for page in pages] == [7, 7, 7, 1]
    assert [neighbor for page in pages for neighbor in page] == whole["neighbors"]
    assert {neighbor["id"] for neighbor in whole["neighbors"]} == set(range(24)) - {3, 9}


def test_the_key_goes_with_every_request_and_no_key_without_one() -> None:
    script = Script(OK, OK)
    with script.client("tröpfchen") as fc7:
        fc7.info()
    with script.client() as fc7:
        fc7.info()
    assert (b"Authorization", b"Bearer " + "tröpfchen".encode()) in script.requests[0].headers.raw
    assert "authorization" not in script.requests[1].headers


def test_the_client_needs_httpx_and_the_standard_library_alone() -> None:
    tree = ast.parse(Path(client.__file__).read_text())
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"httpx"}


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.settled.set()


@contextmanager
def serving(settings: ServiceSettings) -> Iterator[str]:
    """The service in a thread, on a free port of loopback: gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn.Config(create_app(settings), log_config=None, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            server.settled.wait()
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of 24 items, whose index may be changed by those who leave it as it was."""
    growing = Path(shutil.copytree(index, tmp_path_factory.mktemp("client") / "index", symlinks=True))
    with serving(ServiceSettings(model=model, index=growing, api_key=KEY)) as address:
        yield address


def test_photographs_are_classified_in_order(address: str, model: Path, images: Path) -> None:
    path = next((images / "test").rglob("*.jpg"))
    loaded = checkpoint.load(model)
    with FC7(address) as fc7:
        results = fc7.classify(path, PHOTO, views=10, top=2)
    assert [result["name"] for result in results] == [path.name, "input 1"]
    for result, data in zip(results, (path.read_bytes(), PHOTO), strict=True):
        chances = loaded.probabilities(decode(data, ImageLimits()).pixels_CHW[None], 10)[0]
        expected = sorted(zip(chances.tolist(), loaded.classes, strict=True), reverse=True)[:2]
        assert [c["class"] for c in result["classes"]] == [name for _, name in expected]
        np.testing.assert_allclose([c["probability"] for c in result["classes"]], [p for p, _ in expected], rtol=1e-4)


def test_photographs_ids_and_features_are_searched_for_together_in_order(address: str, index: Path, images: Path) -> None:
    opened = open_store(index)
    [item] = opened.items([9])
    with FC7(address) as fc7:
        results = fc7.neighbors(images / item.path, 17, opened.vectors([5])[0], PHOTO, k=3)
    assert [result["neighbors"][0]["id"] for result in results[:3]] == [9, 17, 5]
    assert [result["name"] for result in results] == [Path(item.path).name, "17", "input 2", "input 3"]
    vectors = opened.vectors(list(range(24))).astype(np.float64)
    for result, item_id in zip(results[:3], (9, 17, 5), strict=True):
        distances = np.linalg.norm(vectors - vectors[item_id], axis=1)
        assert [n["id"] for n in result["neighbors"]] == np.argsort(distances, kind="stable")[:3].tolist()


def test_pages_go_through_the_whole_collection_in_order(address: str) -> None:
    with FC7(address) as fc7:
        [whole] = fc7.neighbors(PHOTO, k=24)
        pages = list(fc7.pages(PHOTO, k=7))
        blue = [neighbor for page in fc7.pages(3, k=3, label="blue", mode="code") for neighbor in page]
        others = [neighbor for page in fc7.pages(3, k=3, exclude_label=["blue", "green"]) for neighbor in page]
        below = [neighbor for page in fc7.pages(3, k=3, path_prefix="train/red/") for neighbor in page]
        with pytest.raises(TypeError, match="lable"):
            list(fc7.pages(3, lable="blue"))
    assert [len(page) for page in pages] == [7, 7, 7, 3]
    assert [neighbor for page in pages for neighbor in page] == whole["neighbors"]
    assert sorted(neighbor["id"] for neighbor in blue) == list(range(8))
    assert others == below
    assert sorted(neighbor["id"] for neighbor in others) == list(range(16, 24))


def test_one_bad_photograph_is_raised_and_among_others_its_own_result(address: str) -> None:
    with FC7(address) as fc7:
        good, bad = fc7.classify(PHOTO, b"hello")
        assert (good["error"], bad["classes"], bad["error"]["status"]) == (None, None, 415)
        with pytest.raises(FC7ServiceError, match="not an image") as failed:
            fc7.classify(b"hello")
        assert (failed.value.status, failed.value.problem["title"]) == (415, "Unsupported Media Type")
        good, bad = fc7.neighbors(3, b"hello")
        assert (good["error"], bad["neighbors"], bad["error"]["status"]) == (None, None, 415)
        with pytest.raises(FC7ServiceError, match="not an image"):
            fc7.neighbors(b"hello")


def test_the_index_grows_and_shrinks_by_those_with_the_key(address: str) -> None:
    data = encoded(photograph(4711))
    with FC7(address, KEY) as fc7:
        [added] = fc7.add(data, label="apple")
        assert added["known"] is False
        [again, other] = fc7.add(data, b"hello")
        assert (again["id"], again["known"], other["error"]["status"]) == (added["id"], True, 415)
        [found] = fc7.neighbors(added["id"], k=1)
        assert (found["neighbors"][0]["id"], found["neighbors"][0]["label"]) == (added["id"], "apple")
        fc7.remove(added["id"])
        with pytest.raises(FC7ServiceError, match=str(added["id"])) as failed:
            fc7.remove(added["id"])
        assert failed.value.status == 404
    for key in (None, "another"):
        with FC7(address, key) as fc7, pytest.raises(FC7ServiceError, match="FC7_API_KEY") as failed:
            fc7.remove(0)
        assert failed.value.status == 401


def test_a_reload_of_what_is_there_already_changes_nothing(address: str) -> None:
    with FC7(address, KEY) as fc7:
        info = fc7.info()
        answer = fc7.reload()
    assert (answer["model"], answer["changed"]) == (info["model"]["fingerprint"], False)


def test_info_and_readiness(address: str, model: Path, tmp_path: Path) -> None:
    with FC7(address) as fc7:
        assert fc7.ready()
        assert fc7.info()["model"]["fingerprint"] == checkpoint.load(model).fingerprint
    with serving(ServiceSettings(model=tmp_path, index=tmp_path)) as empty, FC7(empty) as fc7:
        assert not fc7.ready()
        assert fc7.info()["model"] is None
    waits: list[float] = []
    with FC7(empty, attempts=3, sleep=waits.append) as fc7:
        assert not fc7.ready()
        with pytest.raises(httpx.ConnectError):
            fc7.info()
    assert len(waits) == 2


EXAMPLES = [(page, block) for page in pages.pages() for _, block in pages.blocks(page, "python") if pages.ADDRESS in block]


def test_the_readme_and_the_page_of_the_service_have_examples() -> None:
    assert {page.relative_to(pages.ROOT).as_posix() for page, _ in EXAMPLES} == {"README.md", "service/README.md"}


@pytest.mark.parametrize("block", [block for _, block in EXAMPLES])
def test_the_examples_of_the_pages_run(
    block: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand but for the address, in a folder that has a photograph at every path that they name."""
    monkeypatch.chdir(tmp_path)
    for seed, path in enumerate(sorted(set(re.findall(r'"(var/[^"]+)"', block)))):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(encoded(photograph(9000 + seed)))
    Path("example.py").write_text(block.replace(pages.ADDRESS, address))
    runpy.run_path("example.py")
    assert capsys.readouterr().out
