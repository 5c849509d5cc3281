"""How faithful explanations are: the curves of a made collection, and what cannot be measured."""

import re
from pathlib import Path

import numpy as np
import pytest

from indexer import build, fidelity, remove
from indexer.fidelity import FidelitySettings
from training.analysis import deletion
from training.errors import NotReady


def test_the_table_has_each_curves_means_and_the_margins_over_pairs() -> None:
    curves = np.zeros((4, 4, 3, len(deletion.COUNTS)))
    curves[:, 0] = np.array([0.4, 0.5, 0.6, 0.7])[:, None, None]  # the heat's, of each pair
    curves[:, 1] = 0.1
    curves[:, 2] = 0.55
    text = fidelity.table(curves)
    of_heat, of_random, of_centre = (
        re.search(rf"^  {name} .*$", text, re.MULTILINE) for name in ("heat", "random", "centre first")
    )
    assert of_heat
    assert of_random
    assert of_centre
    assert of_heat[0].split()[1:] == ["0.550"] * (len(deletion.COUNTS) + 1)
    assert "0.450 (0.3" in of_random[0]
    margin, low, high = (float(number) for number in re.findall(r"-?\d\.\d+", of_centre[0])[-3:])
    assert low < margin == 0 < high


def test_pairs_of_a_small_collection_are_measured_on_both_sides(
    model: Path, index: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FidelitySettings(model=model, index=index, data=images, pairs=3)
    fidelity.main(settings)
    first = capsys.readouterr().out
    assert first.count("another's heat") == 3
    assert "3 pairs, euclidean" in first
    fidelity.main(settings)
    assert capsys.readouterr().out == first, "the same seed draws the same"


def test_a_collection_without_a_pair_to_compare_with_is_refused(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = sorted((images / "train").rglob("*.jpg"))
    for number in range(3):
        (tmp_path / "alike" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "alike" / "a" / f"{number}.jpg").write_bytes(photographs[0].read_bytes() + bytes(number))
    folder = tmp_path / "index"
    build.main(build.BuildSettings(model=model, data=tmp_path / "alike", index=folder, bits=0))
    settings = FidelitySettings(model=model, index=folder, data=images, pairs=2)
    with pytest.raises(NotReady, match=r"all items .* have the same feature"):
        fidelity.main(settings)
    remove.main(remove.RemoveSettings(index=folder, ids=[0, 1]))
    with pytest.raises(NotReady, match="holds 1 items; at least 2 are needed"):
        fidelity.main(settings)
    remove.main(remove.RemoveSettings(index=folder, ids=[2]))
    with pytest.raises(NotReady, match="holds 0 items; at least 2 are needed"):
        fidelity.main(settings)


def test_photographs_that_the_index_holds_are_no_queries(model: Path, index: Path, images: Path) -> None:
    with pytest.raises(NotReady, match="that the index does not hold"):
        fidelity.main(FidelitySettings(model=model, index=index, data=images, part="train"))
