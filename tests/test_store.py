"""Files: what goes in comes out, the same bytes each time, and nothing else is believed."""

import hashlib
import os
import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmref import store
from pcmref.errors import FileError

ARRAYS = {"a/b.weight": np.arange(2000.0), "c": np.array(3, np.uint8), "d": np.zeros((0, 3), np.float32), "e": np.array([True])}


@pytest.fixture
def path(tmp_path):
    store.write(tmp_path / "x.h5", "test", {"k": [1, "é", None]}, ARRAYS)
    return tmp_path / "x.h5"


def resealed(path, change):
    """Change a file with h5py and give it the right checksum again: what a careful attacker would do."""
    with h5py.File(path, "r+") as file:
        change(file)
    content = path.read_bytes()[store.USER_BLOCK :]
    header = store.MAGIC + b"sha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n"
    path.write_bytes(header.ljust(store.USER_BLOCK, b"\0") + content)


def test_what_goes_in_comes_out(path):
    meta, arrays = store.read(path, "test")
    assert meta == {"k": [1, "é", None]} and arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(arrays[k], ARRAYS[k]) and arrays[k].dtype == ARRAYS[k].dtype for k in ARRAYS)
    with h5py.File(path) as file:  # any HDF5 tool reads it
        assert file["a/b.weight"][3] == 3


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    store.write(tmp_path / "y.h5", "test", {"k": [1, "é", None]}, ARRAYS)
    assert path.read_bytes() == (tmp_path / "y.h5").read_bytes()


@given(st.data())
def test_no_flipped_bit_and_no_truncation_goes_unnoticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "x.h5"
    store.write(path, "test", {}, {"a": np.arange(50.0)})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    else:
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    path.write_bytes(content)
    with pytest.raises(FileError, match="x.h5"):
        store.read(path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__setitem__("soft", h5py.SoftLink("/c")), "link"),
        (lambda f: f.__setitem__("outside", h5py.ExternalLink("other.h5", "/")), "link"),
        (lambda f: f.create_dataset("text", data="words"), "dtype"),
        (lambda f: f.create_dataset("pairs", data=np.zeros(2, [("a", "f4")])), "dtype"),
        (lambda f: f.create_dataset("huge", (1 << 50,), "f8", chunks=(1024,)), "declares"),
        (lambda f: f.create_dataset("thin", (60_000_000,), "u1", chunks=(1,)), "chunks"),
        (lambda f: f.create_dataset("out", (4,), "f8", external=[("/dev/zero", 0, 32)]), "external"),
        (lambda f: f.create_virtual_dataset("virtual", h5py.VirtualLayout((4,), "f8")), "virtual"),
        (lambda f: f.create_dataset("odd", data=np.zeros(9000), compression="lzf"), "unknown storage"),
        (lambda f: f.attrs.__delitem__("meta"), "meta"),
        (lambda f: f.attrs.__setitem__("meta", "{"), "JSON"),
        (lambda f: f.attrs.__setitem__("meta", "[1]"), "object"),
        (lambda f: f.attrs.__setitem__("kind", 3), "kind"),
        (lambda f: f.__setitem__("type", np.dtype("f8")), "neither"),
        (lambda f: f.create_group("/".join("abcdefghijk")), "deep"),
        (lambda f: f.__setitem__("a/loop", f["a"]), "deep"),
        (lambda f: f.__setitem__("again", f["c"]), "twice"),
    ],
)
def test_a_file_with_a_right_checksum_and_a_wrong_content_is_refused(path, change, message):
    resealed(path, change)
    with pytest.raises(FileError, match=message) as error:
        store.read(path, "test")
    assert "x.h5" in str(error.value)


def test_what_is_no_file_of_ours_is_named(path, tmp_path):
    with pytest.raises(FileError, match="is 'test', expected 'network'"):
        store.read(path, "network")
    (tmp_path / "text").write_text("words")
    with pytest.raises(FileError, match="not a pcmref file"):
        store.read(tmp_path / "text", "test")
    with pytest.raises(FileError, match="no such file"):
        store.read(tmp_path / "missing", "test")
    with pytest.raises(FileError, match="is no file"):
        store.read(tmp_path, "test")
    resealed(path, lambda f: None)
    path.write_bytes(path.read_bytes()[: store.USER_BLOCK] + b"no HDF5")
    with pytest.raises(FileError, match="damaged"):
        store.read(path, "test")


def test_the_limit_is_on_declared_bytes(path):
    with pytest.raises(FileError, match="declares over"):
        store.read(path, "test", max_bytes=1000)


@pytest.mark.parametrize("bad", [np.array(["a"]), np.array([None]), np.zeros(2, np.longdouble), np.zeros(2, complex)])
def test_what_cannot_be_stored_is_refused_and_nothing_changes(path, bad):
    before = path.read_bytes()
    for meta, arrays in (({}, {"a": bad}), ({"k": object()}, {}), ({"k": float("nan")}, {})):
        with pytest.raises(FileError, match="x.h5"):
            store.write(path, "test", meta, arrays)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["x.h5"]


def test_an_interrupted_write_leaves_the_old_file_and_no_rubbish(path):
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), store.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == before and os.listdir(path.parent) == ["x.h5"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match="cannot write .*nowhere"):
        store.write(tmp_path / "nowhere" / "x.h5", "test", {}, {})


def test_a_new_file_has_the_usual_permissions(path):
    other = path.parent / "y"
    other.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_a_link_stays_a_link_and_a_pipe_is_no_file(path, tmp_path):
    (tmp_path / "link.h5").symlink_to(path)
    store.write(tmp_path / "link.h5", "test", {"k": 2}, {})
    assert (tmp_path / "link.h5").is_symlink() and store.read(path, "test")[0] == {"k": 2}
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="is no file"):
        store.read(tmp_path / "pipe", "test")


def test_a_pipe_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    store.write_text(pipe, "text")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"] and os.read(reader, 9) == b"text"
    os.close(reader)


def test_a_device_stays_one(tmp_path):
    """Nodes of the test's own: a mistake would replace the machine's."""
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        for node, minor in ((null, 3), (full, 7)):
            os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, minor))
            open(node, "rb").close()
    except PermissionError:
        pytest.skip("this user may not make or use device nodes")
    store.write_text(null, "text")
    with pytest.raises(FileError, match=r"full: No space left on device$"):
        store.write_text(full, "text")
    assert all(stat.S_ISCHR(node.stat().st_mode) for node in (null, full))


@pytest.mark.parametrize("redirected", [True, False])
def test_standard_output_takes_its_turn(tmp_path, redirected):
    """A file that the shell has opened goes on where it stands: what the name would replace, nobody would see."""
    code = "from pcmref import store; print('first'); store.write_text('/dev/stdout', 'second\\n'); print('third')"
    with open(tmp_path / "out", "w+b") as file:
        found = subprocess.run([sys.executable, "-c", code], stdout=file if redirected else subprocess.PIPE, check=True)
        file.seek(0)
        assert (file.read() if redirected else found.stdout) == b"first\nsecond\nthird\n"


def test_what_a_killed_writer_left_is_removed_and_no_other_file(path):
    code = f"from pcmref import store\nwith store.replacing({str(path)!r}): print(flush=True), input()"
    start = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(start, **pipes) as dead, subprocess.Popen(start, **pipes) as alive:
        assert dead.stdout.readline() == alive.stdout.readline() == b"\n"
        dead.kill()
        dead.wait()
        assert len(os.listdir(path.parent)) == 3
        (path.parent / ".x.h5.settings.part").write_text("a user's own")
        store.write(path, "test", {}, {})
        left = sorted(os.listdir(path.parent))
        assert len(left) == 3 and left[1:] == [".x.h5.settings.part", "x.h5"]  # and the one that is being written
        alive.communicate(b"\n")
    assert sorted(os.listdir(path.parent)) == [".x.h5.settings.part", "x.h5"]


def test_a_text_with_bytes_of_no_encoding_can_be_written(tmp_path):
    store.write_text(tmp_path / "a.csv", os.fsdecode(b"n\xff"))
    assert (tmp_path / "a.csv").read_text() == r"n\udcff"
