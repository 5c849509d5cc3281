"""`indexer.duplicates` on photographs: groups on the terminal, as JSON, as CSV, as a contact sheet, and in the index folder."""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from indexer import build, duplicates
from indexer.duplicates import DuplicatesSettings
from indexer.grouping import report
from indexer.grouping.choice import Choice
from indexer.grouping.groups import Group, Threshold
from indexer.index import open_index
from indexer.remove import RemoveSettings
from indexer.remove import main as remove
from indexer.storage import duplicates as stored
from indexer.store import Item
from tests.conftest import COLOURS, encoded, photograph
from training.errors import BadSettings, BadValue, Mismatch, NotFound, NotReady
from training.program import parse

NAMES = ["copy <b>&amp;.jpg", "=1+1.jpg", 'größer, "zu".jpg']
Run = Callable[..., str]


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """An index of twelve photographs, three of them changed a little: one larger, one brighter, one with fewer bytes."""
    folder = tmp_path_factory.mktemp("copies")
    for seed in range(9):
        (folder / "photos" / f"{seed}.jpg").parent.mkdir(exist_ok=True)
        (folder / "photos" / f"{seed}.jpg").write_bytes(encoded(photograph(seed, list(COLOURS.values())[seed % 3])))
    original = photograph(4, list(COLOURS.values())[1])
    changed = [
        encoded(original, quality=60),
        encoded(ImageEnhance.Brightness(original).enhance(1.02)),
        encoded(original.resize((192, 144))),
    ]
    for name, data in zip(NAMES, changed, strict=True):
        (folder / "photos" / name).write_bytes(data)
    build.main(build.BuildSettings(model=model, data=folder / "photos", index=folder / "index", bits=16))
    return folder


@pytest.fixture
def run(with_copies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command on a copy of that index, and gives what it prints."""
    shutil.copytree(with_copies / "index", tmp_path / "index", symlinks=True)

    def run(*options: str) -> str:
        duplicates.main(parse(DuplicatesSettings, ["--index", str(tmp_path / "index"), "--model", str(model), *options]))
        return capsys.readouterr().out

    return run


def sheet_of(path: Path) -> tuple[list[bytes], str]:
    """The pictures and the text of a contact sheet; holds that it has no other tag with an address."""
    pictures, texts = [], []

    class Sheet(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag in {"html", "meta", "title", "style", "h1", "h2", "p", "ul", "li", "img", "br"}
            for name, value in attrs:
                if name == "src":
                    head, data = (value or "").split(",")
                    assert head == "data:image/jpeg;base64"
                    pictures.append(base64.b64decode(data))
                assert name not in ("href", "onload", "onerror")

        def handle_data(self, data: str) -> None:
            texts.append(data)

    Sheet().feed(path.read_text())
    return pictures, "\n".join(texts)


def test_changed_photographs_are_one_group_whose_representative_is_the_largest(
    run: Run, with_copies: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"groups.{name}" for name in ("json", "csv", "html")}
    out = run(*[word for name, path in files.items() for word in (f"--{name}", str(path))])
    store = open_index(tmp_path / "index")
    record = stored.read(tmp_path / "index")
    assert (record.index_version, record.compared, record.found, record.metric) == (1, 12, 1, "euclidean")
    threshold = record.threshold
    assert f"1 groups of 4 among 12 items, linked by pairs within {threshold:.4g} by Euclidean distance" in out
    assert f"That distance is {record.chosen}." in out
    assert re.search("0 of 12 photographs.*copies of 12 photographs.*JPEG of quality 50 .*half the size .*%", record.chosen)
    photos = (with_copies / "photos").resolve()
    expected = {str(photos / name) for name in [*NAMES, "4.jpg"]}

    content = json.loads(files["json"].read_text())
    [group] = content["groups"]
    assert (content["metric"], content["threshold"], content["chosen"]) == ("euclidean", threshold, record.chosen)
    assert {item["file"] for item in group["items"]} == expected
    first = group["items"][0]
    assert (first["file"], first["width"], first["height"], first["distance"]) == (str(photos / NAMES[2]), 192, 144, 0)
    vectors_ND = store.vectors([item["id"] for item in group["items"]]).astype(np.float64)
    distances = np.sqrt(np.square(vectors_ND - vectors_ND[0]).sum(1))
    np.testing.assert_allclose([item["distance"] for item in group["items"]], distances, rtol=1e-6)
    assert group["farthest"] == group["items"][-1]["distance"] == max(item["distance"] for item in group["items"])

    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["file"] for row in rows] == [item["file"] for item in group["items"]]
    assert {row["group"] for row in rows} == {"1"}
    assert [float(row["distance"]) for row in rows] == [item["distance"] for item in group["items"]]

    pictures, text = sheet_of(files["html"])
    assert [Image.open(io.BytesIO(data)).size for data in pictures] == [(160, 160)] * 4
    for name in [*expected, record.chosen]:
        assert name in text

    assert record.groups[0].ids == [item["id"] for item in group["items"]]
    assert record.groups[0].sha256s == [item["sha256"] for item in group["items"]]


def test_by_cosine_distance_too_the_threshold_is_the_index_s_own(with_copies: Path, model: Path, tmp_path: Path) -> None:
    settings = {"model": model, "data": with_copies / "photos", "index": tmp_path / "index", "bits": 0, "metric": "cosine"}
    build.main(build.BuildSettings.model_validate(settings))
    duplicates.main(parse(DuplicatesSettings, ["--index", str(tmp_path / "index"), "--model", str(model)]))
    record = stored.read(tmp_path / "index")
    assert (record.metric, [len(group.ids) for group in record.groups]) == ("cosine", [4])
    assert 0 < record.threshold < 2


def test_without_the_model_a_threshold_is_chosen_by_distances_and_that_is_said(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FC7_MODEL", raising=False)
    duplicates.main(parse(DuplicatesSettings, ["--index", "index"]))
    said = capsys.readouterr().out
    assert re.match(r"the distance is chosen without copies of photographs, for want of --model: .*var/model", said)
    record = stored.read(tmp_path / "index")
    assert [len(group.ids) for group in record.groups] == [4]
    assert "copies" not in record.chosen
    with pytest.raises(NotReady, match="nothing"):
        run("--model", str(tmp_path / "nothing"))


def test_a_threshold_that_is_given_needs_no_model(run: Run, tmp_path: Path) -> None:
    assert "That distance is as given." in run("--model", str(tmp_path / "nothing"), "--max-distance", "1")


def test_a_radius_compares_codes(run: Run, tmp_path: Path) -> None:
    assert "linked by pairs within 16 by Hamming distance" in run("--radius", "16")
    record = stored.read(tmp_path / "index")
    assert (record.metric, record.threshold, len(record.groups[0].ids)) == ("hamming", 16, 12)


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1"])
def test_a_label_that_a_spreadsheet_would_evaluate_is_written_as_text(tmp_path: Path, label: str) -> None:
    items = [
        Item(i, "/photos", "=1.jpg", label, 10, 3, 2, "JPEG", "a" * 64, 0, 0, 0)  # the file's cell begins with its folder
        for i in range(2)
    ]
    report.write_csv(tmp_path / "groups.csv", [Group(items, np.array([0.0, 1.0]))], tmp_path)
    with (tmp_path / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["file"]) for row in rows] == [(f"'{label}", "/photos/=1.jpg")] * 2
    chosen = Choice(Threshold("euclidean", 1.0), "as given")
    report.write_json(tmp_path / "groups.json", [Group(items, np.array([0.0, 1.0]))], chosen, tmp_path)
    content = json.loads((tmp_path / "groups.json").read_text())
    assert {item["label"] for item in content["groups"][0]["items"]} == {label}


def test_removed_items_are_in_no_group(run: Run, tmp_path: Path) -> None:
    run()
    [group] = stored.read(tmp_path / "index").groups
    remove(RemoveSettings(index=tmp_path / "index", ids=[group.ids[0], group.ids[3]]))
    run()
    [after] = stored.read(tmp_path / "index").groups
    assert set(after.ids) == set(group.ids[1:3])
    remove(RemoveSettings(index=tmp_path / "index", ids=[group.ids[1]]))
    assert "0 groups of 0 among 9 items" in run()
    assert stored.read(tmp_path / "index").groups == []


@pytest.mark.parametrize("options", [[], ["--max-distance", "1"], ["--radius", "1"]], ids=str)
def test_an_index_of_which_all_was_removed_has_nothing_to_compare(run: Run, tmp_path: Path, options: list[str]) -> None:
    remove(RemoveSettings(index=tmp_path / "index", ids=list(range(12))))
    with pytest.raises(NotReady, match="holds no items"):
        run(*options)


def test_a_sheet_and_a_table_and_the_file_in_the_index_have_bounds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SHEET_PICTURES", 2)
    run("--html", str(tmp_path / "sheet.html"))
    pictures, text = sheet_of(tmp_path / "sheet.html")
    assert len(pictures) == 2
    assert "and 2 more" in text
    monkeypatch.setattr(report, "SHEET_GROUPS", 0)
    monkeypatch.setattr(report, "_ROWS", 0)
    monkeypatch.setattr(stored, "MOST_ITEMS", 3)
    assert "and 1 more groups" in run("--html", str(tmp_path / "sheet.html"))
    pictures, text = sheet_of(tmp_path / "sheet.html")
    assert (pictures, "and 1 smaller groups" in text) == ([], True)
    record = stored.read(tmp_path / "index")
    assert (record.found, record.groups) == (1, [])


def test_what_cannot_be_done_is_said_before_anything_is_compared(run: Run, tmp_path: Path) -> None:
    for options, error, words in (
        (["--radius", "1", "--max-distance", "1"], BadSettings, "not both"),
        (["--radius", "17"], BadValue, "at most 16"),
        (["--radius", "-1"], BadValue, "radius"),
        (["--max-distance", "nan"], BadValue, "max"),
        (["--json", str(tmp_path / "no" / "such.json")], BadValue, "json must be a file, in a folder that is there"),
        (["--html", str(tmp_path)], BadValue, "html must be a file"),
        (["--index", str(tmp_path / "nothing")], NotReady, "indexer.build"),
    ):
        with pytest.raises(error, match=words):
            run(*options)
    with pytest.raises(NotFound, match=re.escape("`python -m indexer.duplicates`")):
        stored.read(tmp_path / "index")


def test_what_is_interrupted_leaves_what_was_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--csv", str(tmp_path / "groups.csv"))
    before = (tmp_path / "groups.csv").read_bytes(), (tmp_path / "index" / "duplicates.json").read_bytes()

    def interrupted(*_: object) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_facts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--csv", str(tmp_path / "groups.csv"))
    assert ((tmp_path / "groups.csv").read_bytes(), (tmp_path / "index" / "duplicates.json").read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groups.csv", "index"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[1]", b'"format":1', b'"distances":[-1', b'"distances":[0,0', b'"ids":["', b'"sha256s":["x'],
    ids=str,
)
def test_a_damaged_file_is_named(run: Run, tmp_path: Path, damage: bytes) -> None:
    run()
    path = tmp_path / "index" / "duplicates.json"
    key = damage.split(b":")[0]
    data = path.read_bytes()
    path.write_bytes(re.sub(re.escape(key) + rb":\[?[^,\]]*", damage, data, count=1) if b":" in damage else damage)
    assert path.read_bytes() != data
    with pytest.raises(Mismatch, match=r"duplicates\.json.*damaged.*indexer\.duplicates"):
        stored.read(tmp_path / "index")
