"""The command writes the picture and prints the table; a wrong output or file is refused before anything is written."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from training.errors import BadValue, NotReady
from training.patches import PatchesSettings, main


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "vit.pth"
    torch.save({"model": {"patch_embed.proj.weight": torch.randn(20, 3, 4, 4)}}, path)
    return path


def test_the_components_are_shown_beside_those_of_conv1(
    weights: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.png", "new/two.svg"):
        main(PatchesSettings(weights=weights, model=model, out=tmp_path / name))
    out = capsys.readouterr().out
    assert f"model.patch_embed.proj.weight of {weights}" in out
    assert "patch embedding, 20 x 3 x 4 x 4" in out
    assert "conv1, 8 x 3 x 11 x 11" in out
    with Image.open(tmp_path / "one.png") as both:
        assert both.format == "PNG"
    assert "<svg" in (tmp_path / "new" / "two.svg").read_text()
    main(PatchesSettings(weights=weights, out=tmp_path / "alone.png"))
    with Image.open(tmp_path / "alone.png") as alone:
        assert alone.width < both.width
    assert "conv1" not in capsys.readouterr().out


def test_wrong_settings_are_said_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"out must be a file \.png or \.svg"):
        main(PatchesSettings(weights=weights, out=tmp_path / "a.jpg"))
    with pytest.raises(BadValue, match="weights must be a file that is there"):
        main(PatchesSettings(weights=tmp_path / "none.pth", out=tmp_path / "a.png"))
    with pytest.raises(NotReady, match="no model at"):
        main(PatchesSettings(weights=weights, model=tmp_path / "none", out=tmp_path / "a.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vit.pth"]
