import os
import resource
import signal
import subprocess
import sys

import pytest

from dfplan.whole_files import exchange, opened, remove_partial_files, write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_whole(path, b"old")
    write_whole(path, "n\u00e9w")
    assert path.read_bytes() == "n\u00e9w".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, fails):
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def broken(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, fails, broken)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.bin"
    write_whole(path, "old")

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    program = "import sys; from dfplan.whole_files import write_whole; write_whole(sys.argv[1], bytes(5000))"
    result = subprocess.run([sys.executable, "-c", program, path], preexec_fn=limit, capture_output=True, text=True)
    assert "File too large" in result.stderr
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.bin"]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    write_whole(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a.txt", "\ud800")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_links_are_not_followed(tmp_path, monkeypatch):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "a.txt").symlink_to(mine)
    write_whole(tmp_path / "a.txt", "new")
    assert mine.read_text() == "mine" and (tmp_path / "a.txt").read_text() == "new"
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123")
    (tmp_path / ".a.txt.0123.partial").symlink_to(mine)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a.txt", "newer")
    assert mine.read_text() == "mine" and (tmp_path / "a.txt").read_text() == "new"


def test_only_leftovers_of_this_file_are_removed(tmp_path):
    names = [".a[1].txt.0f3c.partial", ".a[1].txt.4711.partial", ".a[1].txt.b.txt.0f3c.partial", ".a1.txt.0f3c.partial"]
    for name in names:
        (tmp_path / name).write_text("part")
    remove_partial_files(tmp_path / "a[1].txt")
    assert {entry.name for entry in tmp_path.iterdir()} == set(names[2:])
    remove_partial_files(tmp_path / "nowhere" / "a.txt")


def test_an_ordinary_file_is_opened_and_a_link_to_one_too(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        with opened(tmp_path / name) as file:
            assert file.read() == b"text"


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"text")
    real = os.stat

    def stat(name):
        found = real(name)
        path.unlink()
        os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(OSError, match="no ordinary file"), opened(path):
        pass


def test_two_folders_swap_their_names(tmp_path):
    for name in "ab":
        write_whole(tmp_path / name / "text", name)
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system cannot exchange folders")
    assert [(tmp_path / name / "text").read_text() for name in "ab"] == ["b", "a"]
    assert not exchange(tmp_path / "a", tmp_path / "nowhere")
    assert (tmp_path / "a" / "text").read_text() == "b"
