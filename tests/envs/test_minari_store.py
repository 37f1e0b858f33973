"""What may happen to a dataset's place: two processes, kills, full disks, folders of others."""

import itertools
import json
import os
import resource
import shutil
import subprocess
import sys

import h5py
import minari
import pytest

from dfplan.envs import assemble, collect, minari_store
from dfplan.envs.collect import own_data
from dfplan.envs.maze.layouts import named
from dfplan.envs.maze.shards import SHARD_STEPS, MazeRecipe
from dfplan.envs.shards import make_shards, remove_damaged, shard_path
from dfplan.whole_files import write_whole

ID = "test/umaze-v0"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with 300 steps of the maze's own data, and the same under ID."""
    store = tmp_path_factory.mktemp("made") / "minari"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(store))
        patch.setitem(collect.DEFAULT_STEPS, "umaze", 300)
        make()
        collect.collect("maze2d-umaze", quiet=True, workers=1)
    return store


@pytest.fixture
def filled(root, made):
    shutil.copytree(made, root)
    return root


@pytest.fixture
def short(monkeypatch):
    """The maze's own data has 300 steps."""
    monkeypatch.setitem(collect.DEFAULT_STEPS, "umaze", 300)


def make(steps=300, dataset_id=ID, **options):
    return collect.collect("maze2d-umaze", steps=steps, dataset_id=dataset_id, quiet=True, workers=1, **options)


def names(folder):
    return {path.name for path in folder.iterdir()}


def start(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# Two processes


def test_of_two_processes_the_second_waits_and_uses_what_is_there(root):
    program = (
        "import dfplan.envs.collect as module; from dfplan.envs.collect import *\n"
        f"module.DEFAULT_STEPS['umaze'] = {2 * SHARD_STEPS}\n"
        "print(own_data('maze2d-umaze'))"
    )
    both = [start(program), start(program)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [out for out, _ in said] == ["dfplan/maze2d-umaze-v1\n"] * 2
    waited = [err for _, err in said if "waiting for process" in err]
    assert len(waited) <= 1 and all("is already there" in err for err in waited)
    assert "Traceback" not in said[0][1] + said[1][1]
    assert names(root / "dfplan") == {"maze2d-umaze-v1", "namespace_metadata.json"}
    assert minari.load_dataset("dfplan/maze2d-umaze-v1").total_steps == 2 * SHARD_STEPS


def test_a_held_lock_is_waited_for(root, short):
    (root / "dfplan").mkdir(parents=True)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from dfplan.locks import hold\n"
            "with hold(sys.argv[1], 'which collects'): print('held', flush=True); sys.stdin.readline()",
            str(root / "dfplan" / ".maze2d-umaze-v1.lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    waiting = start("from dfplan.envs.collect import collect; collect('maze2d-umaze', steps=300, quiet=True)")
    first = waiting.stderr.readline()
    assert first.startswith(f"waiting for process {holder.pid} on ") and "which collects" in first
    assert not (root / "dfplan" / "maze2d-umaze-v1").exists()
    holder.communicate("\n")
    waiting.communicate()
    assert waiting.returncode == 0
    assert names(root / "dfplan") == {"maze2d-umaze-v1", "namespace_metadata.json"}


def test_collections_of_several_mazes_share_a_namespace(root):
    program = "import sys; from dfplan.envs.collect import collect; collect(sys.argv[1], steps=300, quiet=True)"
    every = [start(program, maze) for maze in ("maze2d-umaze", "maze2d-open")]
    said = [process.communicate()[1] for process in every]
    assert [process.returncode for process in every] == [0, 0], said
    assert set(minari.list_local_datasets()) == {f"dfplan/maze2d-{x}" for x in ("umaze-v1", "open-v0")}


# Torn datasets


def tear(kind, folder):
    data = folder / "data"
    about = json.loads((data / "metadata.json").read_text())
    if kind == "no data file":
        (data / "main_data.hdf5").unlink()
    elif kind == "no metadata":
        (data / "metadata.json").unlink()
    elif kind == "empty":
        shutil.rmtree(data)
    elif kind == "truncated":
        os.truncate(data / "main_data.hdf5", 5000)
    elif kind == "no HDF5":
        (data / "main_data.hdf5").write_bytes(bytes(5000))
    elif kind == "half":
        with h5py.File(data / "main_data.hdf5", "a") as file:
            del file["episode_0/rewards"]
    elif kind == "other steps":
        (data / "metadata.json").write_text(json.dumps(about | {"total_steps": 7}))
    elif kind == "other episodes":
        (data / "metadata.json").write_text(json.dumps(about | {"total_episodes": 10**12}))
    elif kind == "half metadata":
        (data / "metadata.json").write_text(json.dumps(about)[:40])
    elif kind == "deep metadata":
        (data / "metadata.json").write_text("[" * 100_000)


TEARS = [
    ("no data file", "main_data.hdf5 is missing"),
    ("no metadata", "metadata.json is missing"),
    ("empty", "metadata.json is missing"),
    ("truncated", "main_data.hdf5 is truncated or damaged"),
    ("no HDF5", "main_data.hdf5 is truncated or damaged"),
    ("half", "main_data.hdf5 is truncated or damaged"),
    ("other steps", "has 1 episodes and 300 steps, and metadata.json says otherwise"),
    ("other episodes", "has 1 episodes and 300 steps, and metadata.json says otherwise"),
    ("half metadata", "metadata.json is not JSON"),
    ("deep metadata", "metadata.json is not JSON"),
]


@pytest.mark.parametrize(("kind", "reason"), TEARS)
def test_a_torn_dataset_is_found(filled, kind, reason):
    assert minari_store.flaw(filled / ID) is None
    tear(kind, filled / ID)
    assert reason in minari_store.flaw(filled / ID)


@pytest.mark.parametrize("kind", ["no metadata", "truncated", "other steps"])
def test_a_torn_dataset_is_made_again(filled, short, capsys, kind):
    folder = filled / "dfplan" / "maze2d-umaze-v1"
    whole = (folder / "data" / "main_data.hdf5").read_bytes()
    tear(kind, folder)
    assert own_data("multi2d-umaze") == "dfplan/maze2d-umaze-v1"
    said = capsys.readouterr().err
    assert "dfplan/maze2d-umaze-v1 is not whole (" in said and dict(TEARS)[kind] in said
    assert (folder / "data" / "main_data.hdf5").read_bytes() == whole
    assert minari.load_dataset("dfplan/maze2d-umaze-v1").total_steps == 300


def test_a_torn_dataset_of_another_origin_is_left(filled):
    folder = filled / ID
    (folder / "data" / "metadata.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"{ID} is there but not whole .*; --overwrite would replace it"):
        make()
    assert (folder / "data" / "metadata.json").read_text() == "{}"
    make(overwrite=True)
    assert minari_store.flaw(folder) is None


def test_a_file_that_another_process_writes_is_not_called_damaged(filled, short):
    path = filled / "dfplan" / "maze2d-umaze-v1" / "data" / "main_data.hdf5"
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print('open', flush=True); input()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline() == "open\n"
    with pytest.raises(OSError, match="cannot be opened"):
        own_data("maze2d-umaze")
    writer.communicate("\n")
    assert own_data("maze2d-umaze") and minari_store.flaw(path.parents[1]) is None


# The store


def test_a_relative_store_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "sub/store")
    make()
    assert minari.load_dataset(ID).total_steps == 300
    assert names(tmp_path) == {"sub"} and names(tmp_path / "sub" / "store") == {"test"}


@pytest.mark.parametrize("problem", ["no home", "empty variable", "a file in the way", "read-only"])
def test_a_store_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch, problem):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.setattr(collect, "make_shards", lambda *_: pytest.fail("worked in vain"))
    if problem == "no home":
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif problem == "empty variable":
        monkeypatch.setenv("MINARI_DATASETS_PATH", "")
    elif problem == "a file in the way":
        (tmp_path / "file").touch()
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "store"))
    else:

        def refused(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
        monkeypatch.setattr(minari_store.tempfile, "TemporaryFile", refused)
    with pytest.raises((OSError, ValueError), match="MINARI_DATASETS_PATH"):
        make()
    assert not list(tmp_path.rglob("*.npz"))


def test_a_dataset_in_another_one_is_refused(root):
    make(dataset_id="test/outer-v0")
    with pytest.raises(ValueError, match="would lie in another dataset, test/outer-v0"):
        make(dataset_id="test/outer-v0/inner-v0")


# Folders of others


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["notes.txt", "data/notes.txt", "data/0/", "data/metadata.json/"])
def test_a_folder_with_files_of_others_is_refused(root, overwrite, what):
    place = root / ID / what
    (place if what.endswith("/") else place.parent).mkdir(parents=True)
    if not what.endswith("/"):
        place.write_text("mine")
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match="is in the place of test/umaze-v0 and is no part of a collected dataset"):
        make(overwrite=overwrite)
    assert sorted(root.rglob("*")) == before


def test_files_beside_a_whole_dataset_are_not_deleted_with_it(filled):
    (filled / ID / "notes.txt").write_text("mine")
    assert make() == ID
    with pytest.raises(ValueError, match=r"notes.txt is in the place of"):
        make(overwrite=True)
    assert (filled / ID / "notes.txt").read_text() == "mine"


def test_links_are_neither_followed_nor_replaced(root, tmp_path):
    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    (mine / "data" / "metadata.json").write_text("mine")
    (root / "test").mkdir(parents=True)
    (root / ID).symlink_to(mine)
    with pytest.raises(ValueError, match="umaze-v0 is in the place of"):
        make(overwrite=True)
    (root / ID).unlink()
    recipe = MazeRecipe(str(named("umaze")), 300, 300, 0)
    link = root / "test" / f".collecting-umaze-v0-{recipe.fingerprint()}"
    link.symlink_to(mine)
    with pytest.raises(ValueError, match="is a link, where a folder for shards is expected"):
        make()
    link.unlink()
    (root / "test" / ".umaze-v0.new-0123").symlink_to(mine)
    make()
    assert names(mine) == {"data"} and (mine / "data" / "metadata.json").read_text() == "mine"
    assert names(root / "test") == {"umaze-v0", "namespace_metadata.json"}


# Data that is not the maze's own


def test_data_made_with_other_settings_is_said_to_be_so(root, short, capsys):
    collect.collect("maze2d-umaze", steps=200, seed=1, quiet=True)
    different = "200 steps instead of 300 and seed 1 instead of 0"
    said = capsys.readouterr().err
    assert f"it will have {different}; another --dataset-id keeps it apart" in said
    assert own_data("multi2d-umaze") == "dfplan/maze2d-umaze-v1"
    said = capsys.readouterr().err
    assert f"has {different}; python -m dfplan.envs.collect --env maze2d-umaze-v1 --overwrite makes it again" in said
    collect.collect("maze2d-umaze", quiet=True)
    assert f"already there, in {root / 'dfplan' / 'maze2d-umaze-v1'}, with {different};" in capsys.readouterr().err
    collect.collect("maze2d-umaze", quiet=True, overwrite=True)
    own_data("maze2d-umaze")
    assert capsys.readouterr().err == ""
    make(steps=200)  # under another id
    assert capsys.readouterr().err == ""


# Kills and full disks


def test_a_kill_at_any_file_operation_leaves_the_old_dataset_or_the_new(filled, tmp_path, monkeypatch):
    """Each operation that changes the folder tree is once the last one of its process."""
    recipe = MazeRecipe(str(named("umaze")), 300, SHARD_STEPS + 50, seed=1)
    (tmp_path / "shards").mkdir()
    make_shards(recipe, tmp_path / "shards", 1, "new", quiet=True)
    (tmp_path / "made").mkdir()
    new = assemble.assemble(recipe, tmp_path / "shards", "maze2d-umaze-v1", ID, tmp_path / "made")
    shutil.copytree(filled, tmp_path / "before")

    def copied_shards(recipe, folder, *_):
        remove_damaged(recipe, folder)
        for index in range(recipe.shards):
            path = shard_path(folder, index)
            if not path.exists():
                write_whole(path, shard_path(tmp_path / "shards", index).read_bytes())

    def copied_dataset(*arguments):
        return shutil.copytree(new, arguments[-1] / ID)

    monkeypatch.setattr(collect, "make_shards", copied_shards)
    monkeypatch.setattr(assemble, "assemble", copied_dataset)

    def again(overwrite):
        return make(steps=recipe.steps, seed=1, overwrite=overwrite)

    def killed_at(n):
        """Whether a collection came to its n-th operation, where it was killed."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        left = [n]

        def count(event, arguments):
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)

        sys.addaudithook(count)
        again(overwrite=True)
        os._exit(0)

    for exchanging in (True, False):
        if not exchanging:
            monkeypatch.setattr(minari_store, "exchange", lambda *_: False)
        found = set()
        for n in itertools.count():
            shutil.rmtree(filled)
            shutil.copytree(tmp_path / "before", filled)
            killed = killed_at(n)
            if exchanging:  # it is there at every moment
                assert minari_store.flaw(filled / ID) is None, n
            if n % 2:  # a retry with the same command, or with another one
                again(overwrite=False)
                assert minari_store.flaw(filled / ID) is None, n
                found.add(minari_store.metadata(filled / ID)["total_steps"])
            again(overwrite=True)
            assert minari.load_dataset(ID).total_steps == recipe.steps
            assert names(filled / "test") == {"umaze-v0", "namespace_metadata.json"}, n
            if not killed:
                break
        assert n > 20 and found == {300, recipe.steps}


def test_all_is_on_the_disk_before_anything_is_removed(filled, monkeypatch):
    done, fsync, exchange, remove = [], os.fsync, minari_store.exchange, minari_store.remove
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file))[1])
    monkeypatch.setattr(minari_store, "exchange", lambda *paths: (done.append("exchange"), exchange(*paths))[1])
    monkeypatch.setattr(minari_store, "remove", lambda path: (done.append("remove"), remove(path))[1])
    make(steps=200, overwrite=True)
    names_done = [name.rpartition("/")[2] for name in done]
    assert {*minari_store.PARTS, "data"} <= set(names_done[: names_done.index("exchange")])
    assert "test" in names_done[names_done.index("exchange") : names_done.index("remove")]


def test_a_crash_of_the_writing_process_leaves_the_old_dataset(filled, monkeypatch):
    before = (filled / ID / "data" / "main_data.hdf5").read_bytes()
    monkeypatch.setattr(assemble, "_PROGRAM", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(OSError, match=r"could not be written \(the process that writes ended by SIGSEGV"):
        make(steps=200, overwrite=True)
    assert (filled / ID / "data" / "main_data.hdf5").read_bytes() == before
    assert not [name for name in names(filled / "test") if ".new-" in name or ".old-" in name]


@pytest.mark.parametrize(
    ("limit", "message"), [(1_000_000, f"{ID} could not be written ("), (100_000, "File too large")]
)
def test_a_disk_that_fills_is_one_sentence_and_leaves_the_old_dataset(filled, limit, message):
    """A limit on the size of a file stands for the full disk: the dataset is larger than a million bytes, a shard is not."""
    before = (filled / ID / "data" / "main_data.hdf5").read_bytes()
    steps = 2 * SHARD_STEPS
    arguments = ["--env", "maze2d-umaze", "--steps", str(steps), "--dataset-id", ID, "--overwrite", "--quiet"]
    full = subprocess.run(
        [sys.executable, "-m", "dfplan.envs.collect", *arguments],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 2
    assert message in full.stderr and full.stderr.startswith("error: ") and full.stderr.count("\n") == 1
    assert (filled / ID / "data" / "main_data.hdf5").read_bytes() == before
    assert not list(filled.rglob("*.partial")) and not list(filled.rglob("*.new-*"))
    make(steps=steps, overwrite=True)
    assert minari.load_dataset(ID).total_steps == steps


def test_room_on_the_disk_is_asked_for_before_the_work(filled, monkeypatch):
    free = shutil.disk_usage(filled)._replace(free=50_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    monkeypatch.setattr(collect, "make_shards", lambda *_: pytest.fail("worked in vain"))
    with pytest.raises(OSError, match=r"collecting 1,000,000 steps needs 99 MB, and the disk of .* has 50 MB left"):
        make(steps=1_000_000, overwrite=True)
    assert minari.load_dataset(ID).total_steps == 300
    assert names(filled / "test") == {"umaze-v0", "namespace_metadata.json"}
