"""The evaluation of an index: its figures against brute force in NumPy, its splits, and what it writes."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from indexer import build, evaluate
from indexer.codes import autoencoder
from indexer.evaluate import EvaluateSettings, main
from indexer.evaluation.protocol import GroundTruth, MethodResult
from indexer.evaluation.report import Report
from indexer.features import colour_histogram
from indexer.opening import open_store
from indexer.storage import artifact
from tests.conftest import encoded, photograph
from training import checkpoint
from training.checkpoint import FeatureLayer, Model
from training.errors import BadValue, Mismatch, NotReady
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise
from training.program import parse


@pytest.fixture(scope="module")
def settings(index: Path, model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateSettings:
    out = tmp_path_factory.mktemp("evaluation")
    return EvaluateSettings(model=model, data=images, index=index, part="all", bits=(16, 128), out=out)


@pytest.fixture(scope="module")
def report(settings: EvaluateSettings) -> Report:
    return evaluate.evaluate(checkpoint.load(settings.model), open_store(settings.index), settings)


def features_of(model: Path, images: Path) -> tuple[np.ndarray, list[str]]:
    """FC7 of the test photographs, in order of path, and their labels."""
    loaded, paths = checkpoint.load(model), sorted((images / "test").rglob("*.jpg"))
    pixels = [decode(path.read_bytes(), ImageLimits()).pixels_CHW[None] for path in paths]
    return np.concatenate([loaded.fc7(one).numpy() for one in pixels]), [path.parent.name for path in paths]


def result(report: Report, name: str, bits: int = 0) -> MethodResult:
    (found,) = [one for one in report.methods if (one.name, one.bits) == (name, bits)]
    return found


def test_neighbours_of_the_right_label_are_counted(report: Report, index: Path, model: Path, images: Path) -> None:
    store = open_store(index)
    vectors, held = store.vectors(range(24)), [item.label for item in store.items(range(24))]
    assert (report.queries, report.database) == (9, 24)
    right, precisions = 0, []
    for feature, label in zip(*features_of(model, images), strict=True):
        ranked = [held[i] == label for i in np.argsort(((vectors - feature) ** 2).sum(1))]
        right += ranked[0]
        precisions.append(sum(ranked[:5]) / 5)
    exact = result(report, "FC7, Euclidean").precision
    assert exact[1].expected == pytest.approx(right / 9)
    assert exact[5].expected == pytest.approx(np.mean(precisions))
    assert result(report, "raw pixels, Euclidean").precision[5].expected == 1.0
    assert "9 queries, none of them indexed, against 24 photographs" in report.table()


def test_exact_and_code_rankings_equal_brute_force(report: Report, index: Path, model: Path, images: Path) -> None:
    store = open_store(index)
    vectors, held = store.vectors(range(24)), [item.label for item in store.items(range(24))]
    own, others = (
        autoencoder.load(store.folder / artifact.AUTOENCODER),
        [autoencoder.train(vectors, 128, seed) for seed in (1, 2)],
    )
    coded = [(own, store.codes(range(24))), *((other, other.encode(vectors)) for other in others)]  # of the seeds 0, 1 and 2
    shuffles = [np.random.default_rng(seed).permutation(24) for seed in range(100)]
    exact, expected, recall = [], [], []
    for feature, label in zip(*features_of(model, images), strict=True):
        squared = ((vectors.astype(np.float64) - feature) ** 2).sum(1)
        relevant = np.array([one == label for one in held])
        exact.append(average_precision(relevant[np.argsort(squared)]))
        for encoder, codes in coded:
            code = encoder.encode(feature[None])[0]
            hamming = np.array([bin(int.from_bytes((one ^ code).tobytes())).count("1") for one in codes])
            orders = [shuffle[np.argsort(hamming[shuffle], kind="stable")] for shuffle in shuffles]
            expected.append(np.mean([average_precision(relevant[order]) for order in orders]))
            recall.append(np.mean([len({*order[:10]} & {*np.argsort(squared)[:10]}) / 10 for order in orders]))
    assert result(report, "FC7, Euclidean").mean_average_precision[0].expected == pytest.approx(np.mean(exact))
    measured = result(report, "autoencoder", 128)
    assert measured.mean_average_precision[0].expected == pytest.approx(np.mean(expected), abs=0.005)
    assert measured.recall[10].expected == pytest.approx(np.mean(recall), abs=0.01)
    assert measured.bytes_per_item == 16


def test_an_index_by_cosine_is_measured_by_angle_and_without_queries_of_zeros(
    index: Path, model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_angle = tmp_path / "index"
    build.main(build.BuildSettings(model=model, data=images, index=by_angle, part="train", bits=0, metric="cosine"))
    store = open_store(index)
    vectors, held = store.vectors(range(24)).astype(np.float64), np.array([item.label for item in store.items(range(24))])
    queries, labels = features_of(model, images)
    ranked = [np.argsort(row, kind="stable") for row in cosine_distances(queries.astype(np.float64), vectors)]
    exact = [average_precision(held[order] == label) for order, label in zip(ranked, labels, strict=True)]
    settings = EvaluateSettings(model=model, data=images, index=by_angle, part="test", out=tmp_path)
    report = evaluated(settings)
    assert (report.metric, report.queries) == ("cosine", 9)
    assert result(report, "FC7, cosine").mean_average_precision[0].expected == pytest.approx(np.mean(exact))
    assert result(report, "FC7, two-stage").recall[10].expected == 1.0
    assert "\nFC7, cosine " in report.table()
    assert "FC7 is compared by the cosine distance." in report.markdown()
    compute = Model.answers

    def with_zeros(self: Model, photographs: Sequence[torch.Tensor], views: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        made, chances = compute(self, photographs, views)
        return torch.where(torch.arange(len(made))[:, None] == 4, 0, made), chances

    monkeypatch.setattr(Model, "answers", with_zeros)
    report = evaluated(settings)
    left = [precision for query, precision in enumerate(exact) if query != 4]
    assert report.queries == 8
    assert result(report, "FC7, cosine").mean_average_precision[0].expected == pytest.approx(np.mean(left))


def average_precision(relevant_N: np.ndarray) -> float:
    return float((np.cumsum(relevant_N) / np.arange(1, len(relevant_N) + 1))[relevant_N].mean())


def test_columns_are_measured_by_their_halves_beside_random_ones(report: Report, index: Path, model: Path, images: Path) -> None:
    store = open_store(index)
    vectors, held = store.vectors(range(24)).astype(np.float64), np.array([item.label for item in store.items(range(24))])
    queries, labels = features_of(model, images)

    def ranked(columns: np.ndarray) -> np.ndarray:
        return np.argsort(euclidean_distances(queries[:, columns].astype(np.float64), vectors[:, columns]), axis=1, kind="stable")

    width = store.width
    parts = {"column 0": np.arange(width) < width // 2, "column 1": np.arange(width) >= width // 2}
    whole = ranked(np.ones(width, bool))[:, :10]
    both = [set(row[:10]) for row in ranked(parts["column 0"])], [set(row[:10]) for row in ranked(parts["column 1"])]
    for name, columns in parts.items():
        found = result(report, f"FC7, {name}")
        order = ranked(columns)
        exact = [average_precision(held[row] == label) for row, label in zip(order, labels, strict=True)]
        assert found.mean_average_precision[0].expected == pytest.approx(np.mean(exact))
        overlap = [len(set(row[:10]) & set(near)) / 10 for row, near in zip(order, whole, strict=True)]
        assert found.recall[10].expected == pytest.approx(np.mean(overlap))
        assert found.other_half is not None
        assert found.other_half.expected == pytest.approx(np.mean([len(a & b) / 10 for a, b in zip(*both, strict=True)]))
        assert (found.compared_with, found.bytes_per_item) == ("FC7, random half", 2 * width)
    control = result(report, "FC7, random half")
    halves = [np.random.default_rng(seed).permutation(width) < width // 2 for seed in control.seeds]
    precisions = [
        np.mean([average_precision(held[row] == label) for row, label in zip(ranked(half), labels, strict=True)])
        for half in halves
    ]
    figure = control.mean_average_precision[0]
    assert figure.expected == pytest.approx(np.mean(precisions))
    difference = result(report, "FC7, column 0").mean_average_precision[0]
    assert difference.difference == pytest.approx(difference.expected - figure.expected)
    assert difference.difference is not None
    assert difference.difference_over_queries is not None
    low, high = difference.difference_over_queries
    assert low <= difference.difference <= high
    lines = report.markdown().splitlines()
    assert any(line.startswith("| FC7, column 1 | FC7, random half | ") for line in lines)
    assert any(line.startswith("| FC7, random half | ") and line.endswith("|  |") for line in lines)


def test_other_layers_are_measured_beside_the_index_and_by_the_same_distance(
    index: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    settings = EvaluateSettings(model=model, data=images, index=index, bits=(0,), layers=("fc6", "conv5", "fc7"), out=tmp_path)
    report = evaluated(settings)
    loaded, store = checkpoint.load(model), open_store(index)
    names = [one.name for one in report.methods]
    assert names.count("FC7, Euclidean") == 1
    paths = sorted((images / "test").glob("*/*.jpg"))
    asked = torch.stack([decode(path.read_bytes(), ImageLimits()).pixels_CHW for path in paths])
    items = store.items(range(24))
    held = torch.stack([decode((Path(item.root) / item.path).read_bytes(), ImageLimits()).pixels_CHW for item in items])
    labels = np.array([item.label for item in items])
    layers: tuple[FeatureLayer, ...] = ("fc6", "conv5")
    for layer, name in zip(layers, ("FC6", "conv5"), strict=True):
        one = loaded.at(layer)
        distances = cosine_distances(one.features(asked).double().numpy(), one.features(held).double().numpy())
        ranked = np.argsort(distances, axis=1, kind="stable")
        exact = [average_precision(labels[row] == path.parent.name) for row, path in zip(ranked, paths, strict=True)]
        found = result(report, f"{name}, cosine")
        assert found.mean_average_precision[0].expected == pytest.approx(np.mean(exact))
        assert found.compared_with == "FC7, cosine"
        assert found.bytes_per_item == 4 * one.width


def test_two_stages_find_what_exact_search_finds(report: Report) -> None:
    (both,) = [one for one in report.methods if one.name == "FC7, two-stage"]
    assert both.recall[10].expected == 1.0
    assert both.precision[10].expected == result(report, "FC7, Euclidean").precision[10].expected


def test_every_length_is_compared_with_every_baseline(report: Report) -> None:
    names = [(one.name, one.bits) for one in report.methods]
    measures = ("Euclidean", "cosine", "centred cosine")
    exact = [*(f"FC7, {measure}" for measure in measures), "FC7, two-stage"]
    exact += ["FC7, column 0", "FC7, column 1", "FC7, random half", "colour histogram, Hellinger"]
    exact += [f"raw pixels, {measure}" for measure in measures]
    ours = ["autoencoder", "autoencoder, no contrast", "autoencoder, reconstruction alone"]
    of_16 = [*ours, "LSH", "PCA-sign", "ITQ", "LSH, raw rows", "PCA-sign, raw rows", "ITQ, raw rows"]
    of_128 = [*ours, "LSH", "LSH, raw rows"]
    assert names == [(name, 0) for name in exact] + [(name, 16) for name in of_16] + [(name, 128) for name in of_128]
    for one in report.methods:
        for figure in one.mean_average_precision.values():
            assert 0 <= figure.worst <= figure.expected <= figure.best <= 1


def test_figures_have_intervals_and_differences_from_the_autoencoder_or_exact_search(report: Report) -> None:
    ours, exact = result(report, "autoencoder", 16), result(report, "FC7, Euclidean")
    assert (ours.compared_with, exact.compared_with) == ("", "")
    control = result(report, "FC7, random half")
    for one in report.methods:
        reference = ours if one.bits == 16 else result(report, "autoencoder", 128) if one.bits else exact
        if one.name.startswith("FC7, column"):
            reference = control
        assert one.compared_with in {reference.name, ""}
        by_chance = bool(one.bits and not one.name.startswith("PCA-sign")) or one is control
        assert one.seeds == ([0, 1, 2] if by_chance else [])
        for figure in (*one.mean_average_precision.values(), *one.precision.values(), *one.recall.values()):
            assert figure.over_queries
            assert figure.over_queries[0] - 1e-6 <= figure.expected <= figure.over_queries[1] + 1e-6
            assert (figure.over_seeds is not None) == by_chance
        found, compared = one.precision[1], reference.precision[1]
        if one.compared_with:
            assert found.difference == pytest.approx(found.expected - compared.expected)
    raw = result(report, "raw pixels, Euclidean").mean_average_precision[0]
    assert raw.verdict == "better"  # the photographs' classes are their colours
    line = next(line for line in report.table().splitlines() if line.startswith("raw pixels, Euclidean"))
    assert f"{raw.expected:.3f} +" in line
    assert "= " in next(line for line in report.table().splitlines() if line.startswith("autoencoder  "))


def test_an_index_by_cosine_is_compared_by_cosine_and_has_no_lengths_of_its_own(
    settings: EvaluateSettings, report: Report, model: Path, images: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build.main(build.BuildSettings(model=model, data=images, index=index, part="train", bits=16, metric="cosine"))
    by_cosine = evaluated(settings, index=index, out=tmp_path, bits=(16,))
    names = [one.name for one in by_cosine.methods]
    assert names[:3] == ["FC7, cosine", "FC7, centred cosine", "FC7, two-stage"]
    assert not [name for name in names if "raw rows" in name]
    exact = result(by_cosine, "FC7, cosine")
    assert (exact.compared_with, result(by_cosine, "FC7, centred cosine").compared_with) == ("", "FC7, cosine")
    figure = result(report, "FC7, cosine").mean_average_precision[0]
    assert exact.mean_average_precision[0].expected == pytest.approx(figure.expected)


def test_one_seed_is_compared_with_nothing_that_has_chance_in_it(settings: EvaluateSettings, tmp_path: Path) -> None:
    report = evaluated(settings, bits=(16,), seeds=1, out=tmp_path)
    verdicts = {one.name: one.precision[1].verdict for one in report.methods if one.bits}
    assert verdicts == dict.fromkeys(verdicts)
    assert result(report, "raw pixels, Euclidean").precision[1].verdict


def test_the_network_before_training_is_compared_where_asked(
    settings: EvaluateSettings, model: Path, images: Path, tmp_path: Path
) -> None:
    report = evaluated(settings, bits=(0,), untrained=True, out=tmp_path)
    loaded = checkpoint.load(model)
    net = AlexNet(loaded.net.config)
    initialise(net, "fan-in", seed=0)  # what the model's training does not say
    random = replace(loaded, net=net.eval())

    def features(part: str) -> tuple[np.ndarray, list[str]]:
        paths = sorted((images / part).rglob("*.jpg"))
        pixels = [decode(path.read_bytes(), ImageLimits()).pixels_CHW[None] for path in paths]
        return np.concatenate([random.fc7(one).numpy() for one in pixels]), [path.parent.name for path in paths]

    (held, labels), (asked, own) = features("train"), features("test")
    order = [np.square(held - query).sum(1).argsort() for query in asked]
    precisions = [average_precision(np.array(labels)[ranked] == label) for ranked, label in zip(order, own, strict=True)]
    assert result(report, "untrained FC7, Euclidean").mean_average_precision[0].expected == pytest.approx(np.mean(precisions))
    assert [one.labels_seen for one in report.methods if one.name.startswith("untrained")] == [0, 0, 0]


def test_rows_say_whether_the_network_saw_the_labels(settings: EvaluateSettings, images: Path, tmp_path: Path) -> None:
    assert evaluated(settings, bits=(0,), out=tmp_path).labels_seen is None
    model = tmp_path / "model"
    shutil.copytree(settings.model, model)
    some = sorted((images / "train").rglob("*.jpg"))[:6]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in some]
    (model / checkpoint.TRAINED_ON).write_text("".join([*lines, f"{'0' * 64}  elsewhere.jpg\n"]))
    report = evaluated(settings, bits=(16,), model=model, out=tmp_path)
    seen = {one.name: one.labels_seen for one in report.methods}
    assert (seen["FC7, Euclidean"], seen["ITQ"], seen["raw pixels, Euclidean"]) == (0.25, 0.25, 0)
    assert "the network was trained on 25% of them with their labels" in report.table()


def test_a_colour_histogram_is_the_share_of_each_of_64_colours_and_its_distance_hellingers() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    roots = colour_histogram(torch.from_numpy(pixels))
    shares = np.zeros((2, 4, 4, 4))
    for share, of_one in zip(shares, pixels, strict=True):
        for red, green, blue in of_one.reshape(3, -1).T:
            share[red // 64, green // 64, blue // 64] += 1 / 64
    np.testing.assert_allclose(roots, np.sqrt(shares.reshape(2, 64)), rtol=1e-6)
    hellinger = np.sqrt(1 - np.sqrt(shares[0] * shares[1]).sum())
    assert np.linalg.norm(roots[0] - roots[1]) == pytest.approx(np.sqrt(2) * hellinger)


def test_latencies_are_given_for_every_mode(report: Report) -> None:
    assert [one.mode for one in report.latencies] == ["exact", "code", "two-stage"]
    for one in report.latencies:
        assert 0 < one.p50_ms <= one.p95_ms <= one.p99_ms
        assert one.queries_per_second > 0


def test_raw_pixels_have_codes_where_the_index_has_them_and_where_asked(
    settings: EvaluateSettings, model: Path, images: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build.main(build.BuildSettings(model=model, data=images, index=index, part="train", bits=16, raw_pixel_codes=True))
    report = evaluated(settings, index=index, out=tmp_path, bits=(16, 28), raw_pixel_codes=True)
    raw = [one for one in report.methods if one.name == "raw pixels, autoencoder"]
    assert [one.bits for one in raw] == [16, 28]
    assert all(one.precision[1].expected > 0.5 for one in raw)  # the photographs' classes are their colours
    assert [one.seeds for one in raw] == [[0, 1], [0, 1]]
    assert [one.mode for one in report.latencies] == ["exact", "code", "two-stage", "ball, radius 2"]


def test_json_markdown_and_picture_are_written(report: Report, settings: EvaluateSettings) -> None:
    assert settings.out
    assert Report.model_validate_json((settings.out / "evaluation.json").read_text()) == report
    text = (settings.out / "evaluation.md").read_text()
    figure = result(report, "LSH", 16).mean_average_precision[0]
    mark = {"better": " +", "worse": " -", "not told apart": ""}[str(figure.verdict)]
    assert figure.over_queries
    assert figure.over_seeds
    spans = [f"{low:.3f} to {high:.3f}" for low, high in (figure.over_queries, figure.over_seeds)]
    assert f"| LSH | 16 | 2 | ? | {figure.expected:.4f}{mark} | {spans[0]} | {spans[1]} |" in text
    assert f"| LSH | 16 | {figure.expected:.4f} | {figure.worst:.4f} | {figure.best:.4f} |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {18, 7, 6, 5}
    with Image.open(settings.out / "evaluation.png") as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_splits_name_photographs_by_content_and_repeat_the_evaluation(
    report: Report, settings: EvaluateSettings, images: Path, tmp_path: Path
) -> None:
    assert settings.out
    for name, part in (("queries", "test"), ("database", "train")):
        data = (settings.out / f"split-{name}.txt").read_bytes()
        hashes = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in (images / part).rglob("*.jpg"))
        assert data.decode().split() == hashes
        assert report.splits[name].sha256 == hashlib.sha256(data).hexdigest()
        assert report.splits[name].photographs == len(hashes)
    splits = tuple(settings.out / f"split-{name}.txt" for name in ("queries", "database"))
    again = evaluated(settings, splits=splits, out=tmp_path, part="train")
    assert again.splits == report.splits
    assert result(again, "FC7, Euclidean") == result(report, "FC7, Euclidean")
    some = tmp_path / "some.txt"
    some.write_text("\n".join(splits[0].read_text().split()[:4]))
    assert evaluated(settings, splits=(some,), out=tmp_path).queries == 4


def evaluated(settings: EvaluateSettings, **changes: object) -> Report:
    changed = settings.model_copy(update={"bits": (), "seeds": 2, **changes})
    return evaluate.evaluate(checkpoint.load(changed.model), open_store(changed.index), changed)


@pytest.mark.parametrize(
    ("queries", "database", "error", "message"),
    [
        ("0" * 64, None, NotReady, "1 of the split's 1 photographs are not below"),
        ("not a hash", None, Mismatch, "is not a file of SHA-256, one a line: it has 'not'"),
        ("", None, Mismatch, "is empty"),
        (None, None, NotReady, "no split at"),
        ("0" * 64, "1" * 64, Mismatch, "lists 1 photographs, of which the index holds 0, and 24 others"),
    ],
)
def test_splits_that_do_not_fit_are_refused(
    settings: EvaluateSettings, tmp_path: Path, queries: str | None, database: str | None, error: type[Exception], message: str
) -> None:
    files = []
    for name, text in (("a", queries), ("b", database)):
        if text is not None:
            (tmp_path / name).write_text(text)
        if name == "a" or text is not None:
            files.append(tmp_path / name)
    with pytest.raises(error, match=message):
        evaluated(settings, splits=tuple(files), out=tmp_path)


def test_what_is_indexed_is_never_a_query(report: Report, settings: EvaluateSettings, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="queries must be new to it"):
        evaluated(settings, part="train", out=tmp_path)
    assert settings.out
    mixed, lists = tmp_path / "mixed.txt", [settings.out / f"split-{name}.txt" for name in ("queries", "database")]
    mixed.write_text("".join(path.read_text()[:65] for path in lists))
    with pytest.raises(Mismatch, match=r"1 of the 2 photographs of .*mixed\.txt cannot be queries: the index holds them"):
        evaluated(settings, splits=(mixed,), out=tmp_path)


def test_a_photograph_is_asked_once_and_only_for_what_the_index_has(
    settings: EvaluateSettings, index: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    data, smaller = tmp_path / "data", tmp_path / "index"
    shutil.copytree(images, data)
    first = min((data / "test").rglob("*.jpg"))
    shutil.copy(first, first.with_name("copy.jpg"))
    (data / "test" / "violet").mkdir()
    (data / "test" / "violet" / "new.jpg").write_bytes(encoded(photograph(77)))
    shutil.copytree(index, smaller, symlinks=True)
    store = open_store(smaller)
    kept = np.setdiff1d(np.arange(24), [0, 5])
    vectors, held = store.vectors(kept.tolist()), [item.label for item in store.items(kept.tolist())]
    store.remove([0, 5]).close()
    report = evaluated(settings, data=data, index=smaller, part="test", bits=(0,), out=tmp_path)
    assert (report.queries, report.database) == (9, 22)
    precisions = []
    for feature, label in zip(*features_of(model, images), strict=True):
        ranked = [held[i] == label for i in np.argsort(((vectors - feature) ** 2).sum(1))]
        precisions.append(average_precision(np.array(ranked)))
    assert result(report, "FC7, Euclidean").mean_average_precision[0].expected == pytest.approx(np.mean(precisions))


def test_lengths_come_in_one_list_and_a_wrong_one_is_named(
    settings: EvaluateSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert parse(EvaluateSettings, ["--bits", "16, 28,256"]).bits == (16, 28, 256)
    assert parse(EvaluateSettings, ["--bits", "16", "--bits", "64"]).bits == (16, 64)
    assert parse(EvaluateSettings, ["--splits", "a.txt,b.txt"]).splits == (Path("a.txt"), Path("b.txt"))
    monkeypatch.setenv("FC7_BITS", "128")
    assert parse(EvaluateSettings, []).bits == (128,)
    assert {one.bits for one in evaluated(settings, bits=(0,), out=tmp_path).methods} == {0}
    with pytest.raises(BadValue, match="bits must be of 16, 28, 32, 48, 64, 128, 256, got 17"):
        evaluated(settings, bits=(17,))


def test_the_command_prints_the_table_and_writes_beside_the_index(
    settings: EvaluateSettings, index: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(settings.model_copy(update={"bits": (16,), "seeds": 1, "out": tmp_path / "new"}))
    printed = capsys.readouterr().out
    assert printed.startswith("9 queries, none of them indexed, against 24 photographs; the model")
    itq = next(line for line in printed.splitlines() if line.startswith("ITQ"))
    assert itq.split()[1] == "16"
    assert printed.endswith(f"all figures: {tmp_path}/new/evaluation.md\n")
    assert json.loads((tmp_path / "new/evaluation.json").read_text())["queries"] == 9


def test_places_past_the_end_of_a_list_are_not_right() -> None:
    truth = GroundTruth(np.array([0, 0, 1]), np.array([1]))
    rows = np.pad([[2, -1]], ((0, 0), (0, 8)), constant_values=-1)
    measured = truth.measure_lists(rows, np.array([[2, 0, 1]]))
    assert measured.values["precision", 1] == 1
    assert measured.values["precision", 10] == pytest.approx(0.1)
