"""The comparison of a build and the service over files of others: nothing is unpacked elsewhere, and what differs is named."""

import io
import tarfile
from pathlib import Path

import pytest

from tests.benchmarks import foreign_files
from tests.conftest import encoded, photograph


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(data)


def test_files_of_the_wanted_folders_alone_are_unpacked_and_none_elsewhere(tmp_path: Path) -> None:
    distribution, folder = tmp_path / "a-1.tar.gz", tmp_path / "deep" / "folder"
    with tarfile.open(distribution, "w:gz") as archive:
        for info, data in (
            member("a-1/images/one.png", b"one"),
            member("a-1/images/b/two", b"two"),
            member("a-1/images/../../../out", b"out"),
            member("a-1/images/../setup.py", b"out"),
            member("/etc/images/absolute", b"out"),
            member("a-1/setup.py", b"code"),
            member("a-1/images/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            member("a-1/images/hard", type=tarfile.LNKTYPE, linkname="a-1/setup.py"),
            member("a-1/images/three.tar", b"three"),
            member("a-1/images/.hidden", b"four"),
        ):
            archive.addfile(info, data)
    foreign_files.unpack(distribution, ("images",), folder)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()}
    assert found == {"a-1.tar.gz", "deep/folder/images/one.png", "deep/folder/images/b/two"}
    assert (folder / "images" / "b" / "two").read_bytes() == b"two"


@pytest.mark.slow
def test_what_a_build_and_the_service_say_of_files_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    (data / "one.png").write_bytes(encoded(photograph(1), "PNG"))
    (data / "b" / "copy.png").write_bytes(encoded(photograph(1), "PNG"))
    (data / "b" / "two.jpg").write_bytes(encoded(photograph(2)))
    (data / "b" / "text.jpg").write_bytes(b"no photograph")
    assert foreign_files.run(data, tmp_path / "work") == 0
    printed = capsys.readouterr().out
    assert "    2  indexed: PNG\n    1  indexed: JPEG\n    1  refused: is text\n.: 1 indexed, 0 refused\n" in printed
    assert "b: 2 indexed, 1 refused\n4 files: 3 indexed, 1 refused, 0 differ" in printed
    ask = foreign_files.ask
    other = encoded(photograph(3))
    monkeypatch.setattr(foreign_files, "ask", lambda connection, _: ask(connection, other))
    assert foreign_files.run(data, tmp_path / "again") == 4
    printed = capsys.readouterr().out
    assert "DIFFERS b/text.jpg: the build: is text, and not an image" in printed
    assert "DIFFERS b/two.jpg: the service finds it at a distance of" in printed
