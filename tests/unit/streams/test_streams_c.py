"""The layout against a C compiler: `probe.c` declares the structures of the reference table as C structs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.streams import KEYWORD, METADATA, Keyword, Stream, semaphore_name, stream_path

COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="named semaphores of Linux"),
]


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """Compile the probe; returns a function that runs it and gives back its lines as a dictionary."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run([COMPILER, "-Wall", "-o", program, source, "-pthread"], check=True, timeout=60)

    def run(*arguments):
        command = [program, *map(str, arguments)]
        done = subprocess.run(command, check=True, timeout=10, capture_output=True, text=True)
        return dict(line.split(" ", 1) for line in done.stdout.splitlines())

    return run


def test_structures_have_the_offsets_of_the_compiler(probe):
    found = {key: int(value) for key, value in probe("layout").items()}
    for name in METADATA.names:
        assert METADATA.fields[name][1] == found.pop(name), name
    assert METADATA.itemsize == found["sizeof"] == 336
    for name in KEYWORD.names[1:]:
        assert KEYWORD.fields[name][1] == found[f"keyword.{name}"], name
    assert KEYWORD.itemsize == found["keyword.sizeof"] == 120
    assert found["sem_t"] == 32


def test_c_reads_a_stream_of_ours(probe, shm_dir):
    image = np.arange(-100, 92, dtype=np.int32).reshape(12, 16)
    with Stream.create("baldr1", image.shape, image.dtype, shm_dir) as stream:
        stream.set_keyword("FPS", 1000.5, "Hz")
        stream.write(image)
        found = probe("read", stream.path)
        posting = int(stream.semaphore_pids()[1][0])
    assert found == {
        "name": "baldr1", "naxis": "2", "size": "16 12 0", "datatype": "6", "imagetype": "2", "sem": "10",
        "NBkw": "10", "cnt0": "1", "write": "0", "location": "-1",
        "sum": str(int((np.arange(1, 193) * image.ravel()).sum())),
        "keyword": "FPS D 1000.5 Hz", "read_pid": "-1", "write_pid": str(posting),
    }  # fmt: skip


def test_frames_from_c_wake_us(probe, shm_dir):
    with Stream.create("baldr1", (32, 32), np.int32, shm_dir) as stream:
        for number in (1, 2):
            probe("frame", stream.path, semaphore_name("baldr1", 1, shm_dir), 7 * number)
            assert stream.wait(1, 10.0)
            data, count = stream.read()
            assert count == number
            assert (data == 7 * number).all()
        assert not stream.wait(1, 0.0)
        assert stream.is_current() is None


def test_our_posts_wake_c(probe, shm_dir):
    with Stream.create("dm1", (12, 12), np.float64, shm_dir) as stream:
        stream.post(1)
        probe("wait", semaphore_name("dm1", 1, shm_dir))  # its time-out is the judge
        assert stream.semaphores[1].value() == 0


def test_we_read_a_stream_made_in_c(probe, shm_dir):
    path, semaphore = stream_path("made_in_c", shm_dir), semaphore_name("made_in_c", 1, shm_dir)
    probe("create", path, semaphore, 16, 12)
    with Stream.open("made_in_c", shm_dir, shape=(12, 16), dtype=np.int32, writable=True) as stream:
        assert stream.layout.file_size == path.stat().st_size
        assert stream.keywords() == {"ANSWER": Keyword("ANSWER", 42, "from C")}
        assert [table.tolist() for table in stream.semaphore_pids()] == [10 * [-1], 10 * [-1]]
        stream.write(np.full((12, 16), 5, np.int32))
        assert probe("read", path)["sum"] == str(5 * 192 * 193 // 2)


@pytest.mark.parametrize(("size", "reason"), [((32, 32), "re-created in place"), ((8, 8), "shrunk")])
def test_recreation_by_c_is_noticed(size, reason, probe, shm_dir):
    """Opening with O_TRUNC and `sem_init` on the old semaphore, as the camera server's library does."""
    with Stream.create("baldr2", (32, 32), np.int32, shm_dir) as stream:
        stream.write(np.ones((32, 32), np.int32))
        probe("create", stream.path, semaphore_name("baldr2", 1, shm_dir), *size)
        assert stream.is_current() == reason
        assert stream.semaphores[1].value() == 0
        with Stream.open("baldr2", shm_dir) as again:
            assert again.inode == stream.inode
            assert again.shape == size
            assert again.is_current() is None
