"""Power may go at any moment: an index killed at every write boundary of a change is the old one or the new one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.assembly import Plan, assemble
from indexer.index import open_index
from indexer.storage import artifact
from tests.indexer.synthetic import SOURCE, block, features

# A process that has done nothing yet is forked for every boundary, since to start one takes longer than all the rest.
KILLED_CHANGE = """
import json, os, shutil, signal, sys
from pathlib import Path
from indexer import changes
from indexer.index import open_index
from indexer.storage.version import open_version
from tests.indexer.synthetic import features, block

EVENTS = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "sqlite3.connect"}
change, master, copy = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def run(last):
    left = last
    def boundary():
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def hook(event, args):
        if event in EVENTS or (event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            boundary()
    fsync = os.fsync
    def dying_fsync(descriptor):
        boundary()
        fsync(descriptor)
        boundary()
    version = open_version(copy)
    sys.addaudithook(hook)
    os.fsync = dying_fsync
    if change == "add":
        changes.add(version, [block(features(40, seed=1), 1000)], Path("/c"))
    elif change == "remove":
        changes.remove(version, [3, 77])
    else:
        changes.compact(version)

outcomes = []
for last in range(10_000):
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(master, copy, symlinks=True)
    child = os.fork()
    if not child:
        run(last)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    index = open_index(copy)
    outcomes.append(index.ids().tolist())
    assert [index.thumbnail(item) for item in index.items(outcomes[-1])]
    index.close()
    if status == 0:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    assemble(folder, [block(features(90))], SOURCE, Plan(bits=16))
    store, _ = open_index(folder).add([block(features(20), 500)], Path("/c"))
    store.remove([5]).close()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("change", ["add", "remove", "compact"])
def test_killed_at_any_write_boundary_an_index_is_the_old_or_the_new_one(change: str, master: Path, tmp_path: Path) -> None:
    before = open_index(master).ids().tolist()
    after = {"add": [*before, *range(110, 150)], "remove": [item for item in before if item not in (3, 77)], "compact": before}
    command = [sys.executable, "-c", KILLED_CHANGE, change, str(master), str(tmp_path / "copy")]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert len(outcomes) > 20
    new = next(i for i, ids in enumerate(outcomes) if ids == after[change])
    assert all(ids == before for ids in outcomes[:new])
    assert all(ids == after[change] for ids in outcomes[new:])
    assert outcomes[-1] == after[change]


def test_what_a_killed_change_left_behind_is_gone_after_the_next(master: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(master, tmp_path / "copy", symlinks=True))
    unfinished = copy / "versions" / ".partial" / "2"
    unfinished.mkdir(parents=True)
    (unfinished / artifact.VECTORS).write_bytes(b"half")
    store, ids = open_index(copy).add([block(features(2, seed=3), 2000)], Path("/c"))
    assert ids == [110, 111]
    assert sorted(path.name for path in (copy / "versions").iterdir()) == ["3", "4"]
    assert len(store) == 111
