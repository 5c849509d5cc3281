"""The command measures what it says, keeps it beside the index, and refuses what does not go together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.index import open_index
from indexer.storage import artifact
from tests.conftest import SmallConfig, encoded, photograph
from training import checkpoint, invariance
from training.analysis import invariance_report
from training.analysis.perturbations import PERTURBATIONS, POINTS
from training.errors import BadSettings, Mismatch, NotFound, NotReady
from training.images.preprocess import ImageLimits, decode
from training.images.statistics import Statistics
from training.invariance import InvarianceSettings
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise
from training.program import parse

CLASSES = ["blue", "green", "red"]


def network(folder: Path, seed: int, lrn_after: tuple[int, ...] = (1, 2)) -> Path:
    net = AlexNet(SmallConfig(classes=3, lrn_after=lrn_after))
    initialise(net, "fan-in", seed=seed)
    checkpoint.save(folder, net, CLASSES, torch.full((3, 256, 256), 110.0))
    return folder


def run(*options: object) -> InvarianceSettings:
    settings = parse(InvarianceSettings, [str(option) for option in options])
    invariance.main(settings)
    return settings


@pytest.fixture
def growing(index: Path, tmp_path: Path) -> Path:
    """A copy of the index that may be written to."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "versions").symlink_to(index / "versions")
    (folder / "current").symlink_to("versions/1")
    return folder


def test_the_report_of_a_collection_has_every_point_and_measure(
    model: Path, images: Path, growing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = run("--model", model, "--data", images, "--index", growing, "--out", tmp_path / "out", "--photographs", "5")
    record = invariance_report.read(settings.out / "report.json")
    assert invariance_report.read(growing / artifact.INVARIANCE) == record
    store = open_index(growing)
    assert record.layer == store.manifest.layer
    assert (record.fingerprint, record.index_version, record.neighbors_among) == (store.fingerprint, 1, len(store))
    assert (record.photographs, record.data, record.part, record.beside) == (5, images.name, "test", None)
    found = [(curve.kind, point.level) for curve in record.networks.curves for point in curve.points]
    assert found == list(POINTS)
    for curve in record.networks.curves:
        assert (curve.unit, curve.identity) == (PERTURBATIONS[curve.kind].unit, PERTURBATIONS[curve.kind].identity)
        for point in curve.points:
            assert set(point.measures) == {"l2", "angle", "share"} | ({"bits"} if store.bits else set()) | {"overlap"}
            for spread in point.measures.values():
                assert spread.photographs[0] <= spread.mean <= spread.photographs[1]
                assert spread.networks is None
    distances = record.networks.distances
    for curve in record.networks.curves:
        for point in curve.points:
            assert distances["l2"].other
            assert point.measures["share"].mean == pytest.approx(point.measures["l2"].mean / distances["l2"].other)
    table = (settings.out / "report.md").read_text()
    assert table.count("\n| gain, pixels times | 0.25 |") == 1
    told = capsys.readouterr().out
    assert str(settings.out / "report.json") in told
    assert str(settings.out / "share.png") in told
    with Image.open(settings.out / "overlap.png") as picture:
        assert picture.size[0] > 500
    store.close()


def test_the_moves_of_one_photograph_are_those_of_its_own_features(
    model: Path, index: Path, images: Path, tmp_path: Path
) -> None:
    file = sorted((images / "test" / "red").iterdir())[0]
    settings = run("--model", model, "--data", file, "--out", tmp_path / "out")
    record = invariance_report.read(settings.out / "report.json")
    assert (record.photographs, record.part, record.data) == (1, "", file.name)
    assert (record.networks.distances["l2"].same, record.networks.distances["l2"].other) == (None, None)
    pixels = decode(file.read_bytes(), ImageLimits()).pixels_CHW
    statistics = Statistics()
    statistics.add(pixels)
    np.testing.assert_allclose(record.covariance, statistics.covariance_33)
    loaded = checkpoint.load(model)
    f0, f = loaded.fc7(pixels[None])[0], loaded.fc7(pixels.flip(-1)[None])[0]
    [mirrored] = next(curve for curve in record.networks.curves if curve.kind == "mirror").points
    assert mirrored.measures["l2"].mean == pytest.approx(float((f - f0).norm() / f0.norm()), rel=1e-4)
    assert set(mirrored.measures) == {"l2", "angle"}
    darker = next(curve for curve in record.networks.curves if curve.kind == "bias").points[0]
    assert darker.level == -100
    assert darker.clipped == pytest.approx(float((pixels < 100).float().mean()))


def test_networks_beside_others_are_compared_photograph_by_photograph(images: Path, tmp_path: Path) -> None:
    first = [network(tmp_path / f"lrn-{seed}", seed) for seed in (0, 1)]
    second = [network(tmp_path / f"plain-{seed}", seed, ()) for seed in (0, 1)]
    names = [",".join(map(str, folders)) for folders in (first, second)]
    settings = run(
        "--model",
        names[0],
        "--beside",
        names[1],
        "--data",
        images,
        "--part",
        "all",
        "--photographs",
        13,
        "--out",
        tmp_path / "out",
    )
    record = invariance_report.read(settings.out / "report.json")
    assert record.beside
    assert record.difference
    assert (record.networks.lrn_after, record.beside.lrn_after) == ([1, 2], [])
    assert (set(record.networks.divisors), record.beside.divisors) == ({"conv1", "conv2"}, {})
    assert record.neighbors_among == 12
    for ours, theirs, less in zip(record.networks.curves, record.beside.curves, record.difference, strict=True):
        for one, other, difference in zip(ours.points, theirs.points, less.points, strict=True):
            for measure, spread in difference.measures.items():
                assert spread.mean == pytest.approx(one.measures[measure].mean - other.measures[measure].mean, abs=1e-9)
                assert spread.networks
            assert difference.clipped is None
    assert "overlap" in record.difference[0].points[0].measures
    same = run("--model", names[0], "--beside", names[0], "--data", images, "--photographs", 3, "--out", tmp_path / "same")
    nothing = invariance_report.read(same.out / "report.json").difference
    assert nothing
    assert {spread.mean for curve in nothing for point in curve.points for spread in point.measures.values()} == {0.0}


def test_what_does_not_go_together_is_refused(model: Path, index: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="beside must name as many folders as model, 1, got 2"):
        parse(InvarianceSettings, ["--model", str(model), "--beside", f"{model},{model}"])
    with pytest.raises(BadSettings, match="index goes with one model alone"):
        parse(InvarianceSettings, ["--model", str(model), "--beside", str(model), "--index", str(index)])
    other = network(tmp_path / "other", 5)
    with pytest.raises(Mismatch, match="was made with the model"):
        run("--model", other, "--index", index, "--data", images, "--out", tmp_path / "out")
    with pytest.raises(NotReady, match="no data set"):
        run("--model", model, "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()


def test_files_that_cannot_be_read_are_left_out_and_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos" / "red"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"no photograph")
    with pytest.raises(NotReady, match=r"no photograph of .* can be read"):
        run("--model", model, "--data", tmp_path / "photos", "--part", "all", "--out", tmp_path / "out")
    (folder / "b.jpg").write_bytes(encoded(photograph(3)))
    settings = run("--model", model, "--data", tmp_path / "photos", "--part", "all", "--out", tmp_path / "out")
    assert invariance_report.read(settings.out / "report.json").photographs == 1
    assert "left out red/a.jpg" in capsys.readouterr().out


def test_a_feature_of_zeros_is_left_out(tmp_path: Path, images: Path) -> None:
    net = AlexNet(SmallConfig(classes=3))
    initialise(net, "fan-in", seed=1)
    with torch.no_grad():
        net.fc7.weight.zero_()
        assert net.fc7.bias is not None
        net.fc7.bias.zero_()
    checkpoint.save(tmp_path / "dead", net, CLASSES, torch.full((3, 256, 256), 110.0))
    with pytest.raises(NotReady, match="has a feature that can be compared"):
        run("--model", tmp_path / "dead", "--data", images, "--out", tmp_path / "out")


def test_a_damaged_report_says_what_is_wrong_and_what_writes_it_anew(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(NotFound, match=r"python -m training\.invariance --index"):
        invariance_report.read(path)
    for content in ("{}", '{"format": 2}', "no json"):
        path.write_text(content)
        with pytest.raises(Mismatch, match="damaged, or of another program"):
            invariance_report.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(Mismatch, match="not a file of at most"):
        invariance_report.read(path)
