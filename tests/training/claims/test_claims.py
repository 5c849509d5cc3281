"""The command: every claim on made-up photographs, resumed, reported, drawn."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

from tests.training.claims.conftest import TINY, write_packed
from tests.training.claims.made import made_report
from training.claims import claim, drawing, scale, table, trainer, workers
from training.claims.__main__ import ClaimsSettings, main
from training.claims.arm import RATES, RunResult, RunSpec
from training.claims.claim import Unit, claims
from training.claims.measuring import Stopped
from training.claims.networks import CIFAR
from training.claims.paper import lrn
from training.claims.plan import Plan
from training.claims.record import REPORT, SHIPPED, Report
from training.claims.workers import Examination, Place
from training.errors import BadSettings, BadValue, FC7Error, Mismatch, NotReady
from training.program import parse

ROOT = Path(__file__).resolve().parents[3]


class Here:
    """Works in this process, one thing after the other; what it made and examined is kept."""

    def __init__(self) -> None:
        self.made: list[RunSpec] = []
        self.examined: list[Examination] = []
        self.most: int | None = None

    def train(self, place: Place, left: Sequence[RunSpec], until: float | None = None) -> Iterator[RunSpec]:
        """As workers.train; it is interrupted after `most`."""
        _begin(place)
        for spec in left:
            if self.most is not None and len(self.made) >= self.most:
                raise KeyboardInterrupt
            self.made.append(spec)
            workers._train(spec)
            yield spec

    def examine(self, place: Place, left: Sequence[Examination], until: float | None = None) -> Iterator[Examination]:
        """As workers.examine."""
        _begin(place)
        for examination in left:
            self.examined.append(examination)
            workers._examine(examination)
            yield examination


def _begin(place: Place) -> None:
    for folder in (workers.RUNS, workers.MODELS, workers.STATES, workers.FIGURES):
        (place.out / folder).mkdir(exist_ok=True)
    workers._worker = workers._Worker(place, stop=_Never(), parts={})  # type: ignore[arg-type]


class _Never:
    def is_set(self) -> bool:
        return False


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """In place of processes."""
    runs = Here()
    monkeypatch.setattr(workers, "train", runs.train)
    monkeypatch.setattr(workers, "examine", runs.examine)
    monkeypatch.setattr(workers._Worker, "stopping", lambda _: False)
    return runs


def settings(out: Path, *options: str) -> ClaimsSettings:
    return parse(ClaimsSettings, ["--quick", "--out", str(out), "--device", "cpu", *options])


def test_every_claim_is_measured_on_made_up_photographs(
    out: Path, here: Here, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scale.SCALES, "quick", replace(TINY, pilots=False))
    main(settings(out, "--seeds", "2"))
    found = Report.model_validate_json((out / "claims.json").read_bytes())
    assert [claim.name for claim in found.claims] == [claim.name for claim in claims() if not claim.long]
    assert all(claim.rows and not claim.missing for claim in found.claims)
    assert found.photographs == {"cifar": {"train": 10, "test": 7}, "caltech": {"train": 12, "test": 5}}
    results = [RunResult.model_validate_json(path.read_bytes()) for path in (out / "runs").iterdir()]
    of_even_classes = ("caltech", 3)
    assert {(result.spec.arm.data, result.test.photographs) for result in results} == {
        ("cifar", 7),
        ("caltech", 5),
        of_even_classes,
    }
    rows = [row for claim in found.claims for row in claim.rows]
    assert all(len(row.seeds) == 2 for row in rows if not row.label.startswith("epochs to 25 %"))
    assert (out / "claims.md").read_text() == table.table(found) + "\n"
    assert table.table(found) in capsys.readouterr().out
    for name in ("figure1.svg", "forest.svg", "figure3.svg", "brightness.svg"):
        assert ET.fromstring((out / name).read_text()).tag.endswith("svg")  # noqa: S314


def test_what_takes_long_is_measured_alone(out: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scale.SCALES, "long", replace(TINY, pilots=False))
    main(parse(ClaimsSettings, ["--long", "--out", str(out), "--device", "cpu"]))
    found = Report.model_validate_json((out / "claims.json").read_bytes())
    assert [claim.name for claim in found.claims] == ["thirteen"]
    [without, *_] = [row for row in found.claims[0].rows if row.label == "error without LRN, centre view"]
    [run] = [path for path in (out / "runs").iterdir() if '"lrn":false' in path.read_text()]
    test = RunResult.model_validate_json(run.read_bytes()).test
    assert without.published == 13.0
    assert without.mean == pytest.approx(100 * test.centre / test.photographs, abs=1e-3)


def test_quick_is_under_ten_minutes_of_two_cores_with_a_third_to_spare() -> None:
    place = Place(Path("out"), {}, "cpu", 2, ("", ""))
    every = [claim for claim in claims() if not claim.long]
    plan = Plan(every, scale.SCALES["quick"], place, {"cifar": 50_000, "caltech": 3_000}, None)
    minutes = sum(map(scale.work, plan.runs())) / 2 / 60
    packing = 1.0  # of all photographs, minutes
    assert minutes + packing < 10 * 2 / 3


def test_runs_that_claims_share_are_made_once_and_a_second_call_makes_none(out: Path, here: Here) -> None:
    main(settings(out, "--only", "lrn,fancy-pca", "--seeds", "1"))
    names = [spec.name for spec in here.made]
    assert len(names) == len(set(names))
    pilots = sum(spec.pilot for spec in here.made)
    assert (pilots, len(names) - pilots) == (3 * 10, 10)  # ten arms, for the claims share one
    before = (out / "claims.json").read_text()
    main(settings(out, "--only", "lrn,fancy-pca", "--seeds", "1"))
    assert len(here.made) == len(names)
    assert (out / "claims.json").read_text() == before


def test_a_gpu_rounds_to_tensor_float_32_but_for_an_arm_in_float32(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def run(*_: object) -> None:
        seen.extend([torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32])
        raise Stopped

    monkeypatch.setattr(trainer, "run", run)
    _begin(Place(out, {"cifar": out / "packed" / "cifar.safetensors"}, "cpu", 1, ("", "")))
    for arm in (lrn.FLOAT32, CIFAR):
        with pytest.raises(Stopped):
            workers._train(TINY.spec(arm, 0.01, 0, 20))
    assert seen == [False, False, True, True]


def test_an_interrupted_command_makes_only_what_is_left(out: Path, here: Here) -> None:
    here.most = 5
    with pytest.raises(KeyboardInterrupt):
        main(settings(out, "--only", "crops"))
    here.most = None
    main(settings(out, "--only", "crops"))
    names = [spec.name for spec in here.made]
    assert len(names) == len(set(names)) == 3 * 2 + 2 * 2
    assert not list((out / "states").iterdir())


def test_the_rate_is_that_of_the_pilot_with_the_smallest_error_on_photographs_held_out(out: Path, here: Here) -> None:
    main(settings(out, "--only", "crops", "--seeds", "1"))
    found = Report.model_validate_json((out / "claims.json").read_bytes())
    for arm in found.claims[0].arms:
        of_arm = [spec for spec in here.made if spec.pilot and spec.arm == claims()[_at("crops")].arms[arm.name]]
        errors = {spec.rate: workers.read_record(RunResult, out / "runs" / f"{spec.name}.json").error for spec in of_arm}  # type: ignore[union-attr]
        assert arm.rate == min(errors, key=errors.__getitem__)
        assert sorted(arm.grid) == sorted(errors)


def _at(name: str) -> int:
    return [claim.name for claim in claims()].index(name)


def test_one_seed_is_printed_as_a_direction_without_an_interval(out: Path, here: Here) -> None:
    main(settings(out, "--only", "crops", "--seeds", "1"))
    found = Report.model_validate_json((out / "claims.json").read_bytes())
    assert {row.verdict for row in found.claims[0].rows} == {"direction only"}
    assert all(re.search(r"\| [+-]\d+\.\d\d - \|", line) for line in table.table(found).splitlines()[4:])


def test_the_table_stands_between_the_markers_of_a_page(out: Path, here: Here, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    main(settings(out, "--only", "crops", "--seeds", "1", "--page", str(page)))
    found = Report.model_validate_json((tmp_path / "claims" / "results" / "claims.json").read_bytes())
    assert page.read_text() == f"before\n{table.BEGIN}\n{table.table(found)}\n{table.END}\nafter\n"
    assert (tmp_path / "claims" / "results" / "forest.svg").is_file()


def test_a_page_and_a_device_are_looked_at_before_any_run(out: Path, here: Here, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("no markers")
    with pytest.raises(Mismatch, match="has no lines"):
        main(settings(out, "--only", "crops", "--page", str(page)))
    with pytest.raises(
        BadValue, match=r"device must be auto, cpu, or a CUDA device of this machine, which has \d+, got 'cuda:99'"
    ):
        main(settings(out, "--only", "crops", "--device", "cuda:99"))
    assert not here.made


def test_too_few_photographs_are_named_before_any_run(out: Path, here: Here) -> None:
    write_packed(out / "packed" / "caltech.safetensors", 128, 4, 2)
    with pytest.raises(NotReady, match=r"caltech\.safetensors has 4 photographs to train on; pilots need 5"):
        main(settings(out, "--only", "crops"))
    assert not here.made


def test_photographs_that_were_packed_from_another_folder_are_not_taken_for_those_asked_for(
    out: Path, here: Here, tmp_path: Path
) -> None:
    packed = out / "packed" / "caltech.safetensors"
    packed.unlink()
    for folder in ("one", "other"):
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                for i in range(3):
                    path = tmp_path / folder / part / name / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (16, 16), (60 * i, 90, 10)).save(path)
    options = ("--only", "crops", "--seeds", "1", "--caltech")
    main(settings(out, *options, str(tmp_path / "one")))
    count = len(here.made)
    with pytest.raises(Mismatch, match=rf"caltech.*{tmp_path}/one.*--caltech is {tmp_path}/other; give another --out"):
        main(settings(out, *options, str(tmp_path / "other")))
    (tmp_path / "one").rename(tmp_path / "moved")
    main(settings(out, *options, str(tmp_path / "one")))
    assert len(here.made) == count


def test_weights_that_were_removed_before_they_were_examined_are_made_again(out: Path, here: Here) -> None:
    main(settings(out, "--only", "brightness", "--seeds", "1"))
    count = len(here.made)
    models, figures = sorted((out / "models").iterdir()), sorted((out / "figures").iterdir())
    models[0].unlink()
    main(settings(out, "--only", "brightness", "--seeds", "1"))
    assert len(here.made) == count  # for all that they are for is there
    for path in figures:
        path.unlink()
    main(settings(out, "--only", "brightness", "--seeds", "1"))
    assert [f"{spec.name}.safetensors" for spec in here.made[count:]] == [models[0].name]
    assert sorted((out / "figures").iterdir()) == figures
    figures[0].unlink()
    for path in models:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FC7Error, match=r"models/\w+\.safetensors does not hold weights of its run; remove it"):
        main(settings(out, "--only", "brightness", "--seeds", "1"))


def test_a_damaged_result_is_named_before_any_run(out: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scale.SCALES, "quick", replace(TINY, pilots=False))
    here.most = 2
    with pytest.raises(KeyboardInterrupt):
        main(settings(out, "--only", "crops"))
    damaged = out / "runs" / f"{here.made[1].name}.json"
    damaged.write_bytes(damaged.read_bytes()[:100])
    here.most = None
    with pytest.raises(FC7Error, match=f"{damaged} is not a RunResult of this version; remove it"):
        main(settings(out, "--only", "crops"))
    assert len(here.made) == 2


def test_networks_that_diverge_are_reported_and_their_results_read_again(
    out: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scale.SCALES, "quick", replace(TINY, pilots=False, epochs={"cifar": 3, "caltech": 3}))
    for starts in RATES.values():
        for start in starts:
            monkeypatch.setitem(starts, start, (1e30,))
    for _ in range(2):
        main(settings(out, "--only", "relu,dropout,brightness,codes,ten-views", "--seeds", "1"))
        found = json.loads((out / "claims.json").read_text(), parse_constant=pytest.fail)
        labels = [row["label"] for claim in found["claims"] for row in claim["rows"]]
        assert any(label.startswith("centre view less ten views") for label in labels)
        assert not any("moved by" in label or "codes" in label or "to equal training loss" in label for label in labels)
        assert "nan" not in (out / "forest.svg").read_text().lower()
    results = [json.loads(path.read_text(), parse_constant=pytest.fail) for path in (out / "runs").iterdir()]
    assert any(epoch["loss"] == "NaN" for result in results for epoch in result["curve"])


def committed() -> Report:
    """The results that are shipped."""
    return Report.model_validate_json((SHIPPED / REPORT).read_bytes())


def test_every_label_of_the_committed_forest_fits_beside_its_plot() -> None:
    found = committed()
    assert max(len(row.label) for claim in found.claims for row in claim.rows) <= 62  # 6 pixels a character, of 376


def test_the_committed_table_is_that_of_the_committed_results() -> None:
    page = (ROOT / "training" / "README.md").read_text()
    found = committed()
    assert f"{table.BEGIN}\n{table.table(found)}\n{table.END}\n" in page


def test_every_row_of_every_unit_is_drawn() -> None:
    rows = [row for claim in made_report().claims for row in claim.rows]
    assert {row.unit for row in rows} == set(get_args(Unit))
    drawn = ET.fromstring(drawing.forest(made_report()))  # noqa: S314
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(row.label for row in rows) == sorted(text for text in texts if text in {row.label for row in rows})


def test_wrong_options_are_named(out: Path) -> None:
    with pytest.raises(BadSettings, match="one of --quick, --full, --large and --long"):
        parse(ClaimsSettings, ["--out", str(out)])
    with pytest.raises(BadValue, match=r"only must be one of .*lrn.*got 'magic'"):
        main(settings(out, "--only", "magic"))


def test_every_claim_says_what_would_be_nothing_and_reads_like_a_paragraph() -> None:
    for module in (ROOT / "training" / "claims" / "paper").glob("[!_]*.py"):
        text = module.read_text()
        assert len(text.splitlines()) <= 100, module
        assert "be nothing" in " ".join(text.split('"""')[1].split()), module
    assert all(claim.nothing and claim.published and claim.arms for claim in claim.claims())


@pytest.mark.slow
def test_processes_stop_when_time_is_over_and_go_on(out: Path) -> None:
    main(settings(out, "--only", "crops", "--minutes", "0.0001"))
    assert not list((out / "runs").glob("*.json"))
    main(settings(out, "--only", "crops", "--processes", "2"))
    assert len(list((out / "runs").glob("*.json"))) == 10
    described = json.loads(next((out / "runs").glob("*.json")).read_text())
    assert described["torch"] == torch.__version__


@pytest.mark.slow
def test_processes_that_examine_leave_progress_to_the_command(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(settings(out, "--only", "codes", "--seeds", "1", "--processes", "2"))
    assert len(list((out / "figures").iterdir())) == 2
    shown = capfd.readouterr().err
    assert "examining" in shown
    assert "principal components" not in shown
