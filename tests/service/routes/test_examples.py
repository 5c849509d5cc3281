"""One query of several examples over HTTP: like these, unlike those; in every mode, page after page, against brute force."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx import Response
from numpy.typing import NDArray

from indexer import build
from indexer.add import AddSettings
from indexer.add import main as add
from indexer.index import Index, open_index
from indexer.remove import RemoveSettings
from indexer.remove import main as remove
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.calls import PHOTO, assert_problem
from tests.service.routes.test_inputs import text
from training import checkpoint
from training.images.preprocess import ImageLimits, decode

OTHER = encoded(photograph(78, COLOURS["blue"]), "PNG")
MAX_IMAGES = 6
MODES = ("mode=exact", "mode=code", "mode=two-stage", "mode=ball&radius=128")
REMOVED = (1, 20)
LIKE, UNLIKE = [3, 9, 17], [12, 5]


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def metric(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory, metric: str) -> Path:
    """An index of two segments, without some items."""
    folder = tmp_path_factory.mktemp(metric)
    build.main(build.BuildSettings(model=model, data=images / "train", index=folder, metric=metric))
    add(AddSettings(model=model, data=images / "test", index=folder))
    remove(RemoveSettings(index=folder, ids=list(REMOVED)))
    assert len(open_index(folder).version.segments) == 2
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Index:
    return open_index(folder)


@pytest.fixture(scope="module")
def client(model: Path, folder: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=folder, max_images=MAX_IMAGES, api_key="key")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, query: str, *inputs: object) -> Response:
    response: Response = client.post(
        f"/neighbors?{query}", content=json.dumps({"inputs": inputs}), headers={"content-type": "application/json"}
    )
    return response


def one(client: TestClient, query: str, like: list[Any], unlike: list[Any] | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {"like": like} if unlike is None else {"like": like, "unlike": unlike}
    response = ask(client, query, given)
    assert response.status_code == 200, response.text
    return dict(response.json()["results"][0])


def items(*ids: int) -> list[dict[str, int]]:
    return [{"id": item} for item in ids]


def rocchio(like: NDArray[np.float64], unlike: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """By the formula; features are never negative here, so nothing of the query is."""
    query_D: NDArray[np.float64] = like.mean(0)
    if unlike is not None:
        query_D = np.maximum((0.75 * query_D - 0.15 * unlike.mean(0)) / 0.6, 0)
    return query_D


def ranked(store: Index, query_D: NDArray[np.float64], mode: str, leave_out: list[int]) -> list[tuple[int, float]]:
    """(id, distance) of all items but these, nearest first, by brute force."""
    ids = store.ids()
    if mode in ("mode=exact", "mode=two-stage"):
        rows_ND = store.vectors(ids.tolist()).astype(np.float64)
        if store.metric == "cosine":
            distances = 1 - rows_ND @ query_D / np.linalg.norm(rows_ND, axis=1) / np.linalg.norm(query_D)
        else:
            distances = np.sqrt(np.square(rows_ND - query_D).sum(1))
    else:
        encoder = store.version.autoencoder
        assert encoder is not None
        compared_D = query_D / np.linalg.norm(query_D) if store.metric == "cosine" else query_D
        code_1W = encoder.encode(compared_D[None].astype(np.float32))
        distances = np.unpackbits(store.codes(ids.tolist()) ^ code_1W, axis=1).sum(1).astype(np.float64)
    order = np.lexsort((ids, distances.round(9)))
    return [(int(ids[row]), float(distances[row])) for row in order if ids[row] not in leave_out]


def compare(neighbors: list[dict[str, Any]], expected: list[tuple[int, float]]) -> None:
    assert [found["id"] for found in neighbors] == [item for item, _ in expected]
    found = [found["distance"] for found in neighbors]
    np.testing.assert_allclose(found, [distance for _, distance in expected], rtol=1e-4, atol=1e-6)


def pages(client: TestClient, query: str, like: list[Any], unlike: list[Any] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = one(client, query + (f"&cursor={cursor}" if cursor else ""), like, unlike)
        found += page["neighbors"]
        cursor = page["next"]
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("unlike", [None, UNLIKE])
def test_neighbours_of_items_together_are_those_of_brute_force_page_by_page(
    client: TestClient, store: Index, mode: str, unlike: list[int] | None
) -> None:
    vectors = [None if ids is None else store.vectors(ids).astype(np.float64) for ids in (LIKE, unlike)]
    assert vectors[0] is not None
    expected = ranked(store, rocchio(vectors[0], vectors[1]), mode, LIKE + (unlike or []))
    examples = items(*LIKE), None if unlike is None else items(*unlike)
    compare(one(client, f"k=40&{mode}", *examples)["neighbors"], expected)
    compare(one(client, f"k=4&{mode}", *examples)["neighbors"], expected[:4])
    for k in (1, 7):
        compare(pages(client, f"k={k}&{mode}", *examples), expected)


def test_a_form_mixes_files_and_items_as_examples_of_one_query(client: TestClient, folder: Path) -> None:
    given = {"like": [{"image": text(PHOTO)}, *items(3, 9)], "unlike": [*items(12), {"image": text(OTHER)}]}
    expected = ask(client, "k=9", given).json()["results"][0]["neighbors"]
    files = {"like": ("a.jpg", PHOTO), "unlike": ("b.png", OTHER)}
    response = client.post("/neighbors?k=9", files=files, data={"like_id": ["3", "9"], "unlike_id": "12"})
    [result] = response.json()["results"]
    compare(result["neighbors"], [(found["id"], found["distance"]) for found in expected])
    assert not {3, 9, 12} & {found["id"] for found in result["neighbors"]}
    page = client.post(f"/neighbors?k=4&cursor={result['next']}", files=files, data={"like_id": ["3", "9"], "unlike_id": "12"})
    assert page.status_code == 200
    alone = client.post("/neighbors?k=9", files={"unlike": ("b.png", OTHER)}, data={"like_id": "3"}).json()["results"][0]
    expected = ask(client, "k=9", {"like": items(3), "unlike": [{"image": text(OTHER)}]}).json()["results"][0]["neighbors"]
    compare(alone["neighbors"], [(found["id"], found["distance"]) for found in expected])


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        ({"like_id": "x"}, 422, ("like_id", "in digits")),
        ({"like_id": "-1"}, 422, ("like_id", "in digits")),
        ({"like_id": "9" * 19}, 422, ("like_id", "in digits")),
        ({"like_id": ""}, 422, ("like_id", "in digits")),
        ({"like_id": "999"}, 404, ("like_id.0", "999")),
        ({"like_id": "03"}, 422, ("like_id", "in digits")),
        ({"unlike_id": "3"}, 422, ("unlike_id must be given beside like or like_id",)),
        ({"image_id": "3"}, 422, ("image_id", "like_id and unlike_id")),
        ({"id": "3"}, 422, ("id", "like_id and unlike_id")),
        ({"like_id": ["3"] * (MAX_IMAGES + 1)}, 422, (f"at most {MAX_IMAGES}",)),
    ],
    ids=str,
)
def test_what_is_no_example_of_a_form_is_named(
    client: TestClient, data: dict[str, Any], status: int, words: tuple[str, ...]
) -> None:
    files = [(name, (None, value)) for name, given in data.items() for value in ([given] if isinstance(given, str) else given)]
    assert_problem(client.post("/neighbors", files=files), status, *words)


def test_the_means_are_of_whatever_the_examples_are(client: TestClient, store: Index, model: Path) -> None:
    loaded = checkpoint.load(model)
    photos_ND = np.concatenate([loaded.fc7(decode(data, ImageLimits()).pixels_CHW[None]).numpy() for data in (PHOTO, OTHER)])
    vector_D = np.random.default_rng(4).uniform(0, 3, store.width)
    rows = [photos_ND[0].astype(np.float64), store.vectors([3])[0].astype(np.float64), vector_D, photos_ND[1].astype(np.float64)]
    if store.metric == "cosine":
        rows = [row / np.linalg.norm(row) for row in rows]
    expected = ranked(store, rocchio(np.stack(rows[:3]), rows[3][None]), "mode=exact", [3])
    examples = [{"image": text(PHOTO)}, {"id": 3}, {"vector": vector_D.tolist()}], [{"image": text(OTHER)}]
    compare(one(client, "k=40&mode=exact", *examples)["neighbors"], expected)
    compare(pages(client, "k=6&mode=exact", *examples), expected)
    compare(pages(client, "k=6&mode=two-stage", *examples), expected)


def test_one_example_is_the_query_itself_but_for_the_item_that_it_is(client: TestClient) -> None:
    for example in ({"id": 9}, {"image": text(PHOTO)}):
        alone = ask(client, "k=40", example).json()["results"][0]["neighbors"]
        found = one(client, "k=40", [example])["neighbors"]
        others = [neighbor for neighbor in alone if neighbor["id"] != example.get("id")]
        assert [neighbor["id"] for neighbor in found] == [neighbor["id"] for neighbor in others]


def test_a_form_of_examples_is_one_query_after_its_other_photographs(client: TestClient) -> None:
    def posted(path: str, *parts: tuple[str, bytes]) -> Response:
        response: Response = client.post(path, files=[(name, ("a.jpg", data)) for name, data in parts])
        return response

    third = encoded(photograph(79, COLOURS["green"]))
    response = posted("/neighbors?k=40", ("like", PHOTO), ("unlike", OTHER), ("like", third), ("image", OTHER))
    other, together = response.json()["results"]
    assert (other["name"], together["name"]) == ("a.jpg", "like")
    same = one(client, "k=40", [{"image": text(PHOTO)}, {"image": text(third)}], [{"image": text(OTHER)}])
    assert [found["id"] for found in together["neighbors"]] == [found["id"] for found in same["neighbors"]]
    found = []
    cursor: str | None = ""
    while cursor is not None:
        given = f"&cursor={cursor}" if cursor else ""
        [page] = posted(f"/neighbors?k=9{given}", ("like", PHOTO), ("like", third), ("unlike", OTHER)).json()["results"]
        found += page["neighbors"]
        cursor = page["next"]
    assert [neighbor["id"] for neighbor in found] == [neighbor["id"] for neighbor in same["neighbors"]]
    bad = posted("/neighbors", ("like", PHOTO), ("like", b"no picture"))
    assert_problem(bad, 415, "like.1: is text")
    assert_problem(posted("/neighbors", ("unlike", PHOTO)), 422, "unlike", "given beside like")
    many = [("like", PHOTO)] * (MAX_IMAGES - 1) + [("unlike", PHOTO)] * 2
    assert_problem(posted("/neighbors", *many), 422, "image", f"at most {MAX_IMAGES} files a request")
    ids = client.post("/neighbors", files=[("like", ("a.jpg", PHOTO))], data={"like_id": ["1"] * MAX_IMAGES})
    assert_problem(ids, 422, "like_id", f"at most {MAX_IMAGES} a request, got '1 files and {MAX_IMAGES} ids'")
    assert_problem(posted("/classify", ("like", PHOTO)), 422, "image", "several examples are for /neighbors")
    added = client.post("/items", files=[("like", ("a.jpg", PHOTO))], headers={"X-API-Key": "key"})
    assert_problem(added, 422, "image", "the name of every file's field")


def test_filters_and_bounds_hold_for_examples_too(client: TestClient) -> None:
    everything = one(client, "k=40", items(*LIKE), items(*UNLIKE))["neighbors"]
    red = [found for found in everything if found["label"] == "red"]
    assert one(client, "k=40&label=red", items(*LIKE), items(*UNLIKE))["neighbors"] == red
    near = one(client, f"k=40&max_distance={everything[5]['distance']}", items(*LIKE), items(*UNLIKE))["neighbors"]
    assert near == everything[:6]


def test_a_cursor_is_of_its_own_examples(client: TestClient) -> None:
    cursor = one(client, "k=3", items(3, 9), items(12))["next"]
    assert one(client, f"k=3&cursor={cursor}", items(3, 9), items(12))["neighbors"]
    for like, unlike in (([3, 9], [5]), ([3, 12], [9]), ([3, 9, 12], []), ([3], [12])):
        response = ask(client, f"k=3&cursor={cursor}", {"like": items(*like), "unlike": items(*unlike)})
        assert_problem(response, 422, "cursor", "same question")


def test_among_other_inputs_examples_are_one_in_its_place(client: TestClient) -> None:
    given = {"like": items(3, 9), "name": "mine"}
    results = ask(client, "k=5", {"id": 0}, given, {"like": items(3, 99)}, {"image": text(PHOTO)}).json()["results"]
    assert [result["name"] for result in results] == ["0", "mine", "input 2", "input 3"]
    assert results[1]["neighbors"] == one(client, "k=5", items(3, 9))["neighbors"]
    assert results[2]["error"]["status"] == 404
    assert results[2]["error"]["detail"].startswith("inputs.2.like.1: no item has the id 99")
    assert results[0]["error"] is results[3]["error"] is None


BAD = text(b"no picture")


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"like": [{"id": 3}, {"id": 1}]}, 404, ["inputs.0.like.1: no item has the id 1"]),
        ({"like": [{"id": 3}], "unlike": [{"id": 4}, {"image": BAD}]}, 415, ["inputs.0.unlike.1: is text"]),
        ({"like": [{"id": 3}], "unlike": [{"image": "*"}]}, 422, ["inputs.0.unlike.0.image must be base64"]),
        ({"like": [{"vector": [1.0]}]}, 422, ["inputs.0.like.0: vector must be as long"]),
        ({"like": [{"vector": [1e7] * 32}]}, 422, ["inputs.0.like.0: vector must be of numbers between"]),
        ({"like": [{}]}, 422, ["inputs.0.like.0 must be one of image, id and vector, got 'none of them'"]),
        ({"like": [{"id": 1, "vector": [1.0]}]}, 422, ["inputs.0.like.0", "id and vector"]),
        ({"like": [{"id": 1, "name": "a"}]}, 422, ["inputs.0.like.0.name", "left out"]),
        ({"like": [{"like": [{"id": 1}]}]}, 422, ["inputs.0.like.0.like", "left out"]),
        ({"like": []}, 422, ["inputs.0.like", "at least 1"]),
        ({"unlike": [{"id": 1}]}, 422, ["inputs.0", "none of them"]),
        ({"id": 3, "unlike": [{"id": 1}]}, 422, ["inputs.0.unlike", "given beside like"]),
        ({"id": 3, "like": [{"id": 1}]}, 422, ["inputs.0", "one of image, id, vector and like", "id and like"]),
        ({"like": [{"id": 1}] * (MAX_IMAGES + 1)}, 422, ["inputs", f"at most {MAX_IMAGES} a request"]),
        ({"like": [{"id": 1}] * 4, "unlike": [{"id": 1}] * 3}, 422, ["inputs", f"at most {MAX_IMAGES} a request"]),
        ({"like": 5}, 422, ["inputs.0.like", "array"]),
    ],
)
def test_what_is_wrong_with_an_example_is_said_by_its_position(
    client: TestClient, given: dict[str, Any], status: int, words: list[str]
) -> None:
    assert_problem(ask(client, "k=3", given), status, *words)


def test_examples_without_a_direction_are_refused_by_cosine_alone(client: TestClient, store: Index) -> None:
    zeros = {"vector": [0.0] * store.width}
    if store.metric == "euclidean":
        assert one(client, "k=3", [zeros])["neighbors"]
    else:
        assert_problem(ask(client, "k=3", {"like": [{"id": 3}, zeros]}), 422, "inputs.0.like.1: vector", "direction")


def test_examples_are_not_classified(client: TestClient) -> None:
    response = client.post("/classify", json={"inputs": [{"like": items(3)}]})
    assert_problem(response, 422, "image", "several examples are for /neighbors")
