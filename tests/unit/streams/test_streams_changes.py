"""Streams that other programs write, re-create, cut and delete while we have them open."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from baldr_tango.errors import BackendError
from baldr_tango.streams import Stream, stream_path

SHAPE = (32, 32)

OTHER = "import sys; from baldr_tango.streams import Stream; name, directory = sys.argv[1:]\n"
"""Start of every program that runs beside the test."""


@pytest.fixture
def camera(shm_dir):
    with Stream.create("baldr1", SHAPE, np.int32, shm_dir) as stream:
        yield stream


@pytest.fixture
def reader(camera, shm_dir):
    with Stream.open("baldr1", shm_dir, shape=SHAPE, dtype=np.int32) as stream:
        yield stream


class TestOtherProcess:
    def test_its_frames_wake_us(self, camera, reader, python_program, shm_dir):
        other = python_program(
            OTHER
            + "import numpy as np\n"
            + "stream = Stream.open(name, directory, writable=True)\n"
            + "for line in sys.stdin: stream.write(np.full((32, 32), int(line)))\n",
            "baldr1",
            shm_dir,
        )
        for number in (11, 12, 13):
            other.stdin.write(f"{number}\n")
            other.stdin.flush()
            assert reader.wait(1, 30.0)
            data, count = reader.read()
            assert count == number - 10
            assert (data == number).all()
        assert not reader.wait(1, 0.0)
        assert set(reader.semaphore_pids()[1]) == {other.pid}

    def test_its_death_in_the_middle_of_a_frame_is_an_error_not_a_hang(self, reader, python_program, shm_dir):
        other = python_program(
            OTHER
            + "stream = Stream.open(name, directory, writable=True)\n"
            + "stream._file.write_at(264, b'\\1')\n"
            + "print('writing', flush=True); sys.stdin.read()\n",
            "baldr1",
            shm_dir,
        )
        assert other.stdout.readline() == "writing\n"
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        assert not reader.wait(1, 0.0)
        with pytest.raises(BackendError, match="write flag stays up"):
            reader.read()
        assert reader.is_current() is None

    def test_no_torn_frame_is_ever_read(self, reader, python_program, shm_dir):
        """The writer maps the file and counts late, as the camera server does; every frame is uniform."""
        other = python_program(
            OTHER
            + "import mmap, time\n"
            + "import numpy as np\n"
            + "with open(f'{directory}/{name}.im.shm', 'r+b') as file: memory = mmap.mmap(file.fileno(), 0)\n"
            + "data = np.frombuffer(memory, np.int32, 1024, 336)\n"
            + "count, flag = np.frombuffer(memory, 'u8', 1, 240), np.frombuffer(memory, 'u1', 1, 264)\n"
            + "print('writing', flush=True)\n"
            + "for number in range(1, 1_000_000):\n"
            + "    flag[0] = 1\n"
            + "    for row in range(0, 1024, 128): data[row : row + 128] = number\n"
            + "    flag[0] = 0\n"
            + "    for _ in range(40): pass\n"
            + "    count[0] = number\n"
            + "    time.sleep(1e-4)\n",
            "baldr1",
            shm_dir,
        )
        assert other.stdout.readline() == "writing\n"
        frames = [reader.read(retries=100_000) for _ in range(1000)]
        assert frames[-1][1] > frames[0][1]
        for data, count in frames:
            assert data.min() == data.max()
            assert 0 <= data[0, 0] - count <= 1


class TestReplaced:
    def test_untouched_stream_is_current(self, camera, reader):
        assert reader.is_current() is None
        camera.write(np.zeros(SHAPE, np.int32))
        assert reader.is_current() is None

    def test_new_stream_of_the_same_name(self, camera, reader, shm_dir):
        camera.write(np.ones(SHAPE, np.int32))
        with Stream.create("baldr1", SHAPE, np.int32, shm_dir) as successor:
            assert reader.is_current() == "re-created (new inode)"
            assert successor.inode != reader.inode
            assert successor.counter() == 0
            with pytest.raises(BackendError, match=r"baldr1.*deleted or replaced; open it again"):
                reader.read()
            with pytest.raises(BackendError, match="deleted or replaced"):
                camera.write(np.ones(SHAPE, np.int32))
            successor.write(np.full(SHAPE, 2, np.int32))
            assert reader.semaphores[1].value() == 1  # the first stream's frame
            with Stream.open("baldr1", shm_dir) as again:
                assert again.wait(1, 0.0)
                assert again.read()[0][0, 0] == 2
                assert again.is_current() is None

    def test_new_stream_appears_complete(self, shm_dir):
        """Whoever opens by name while it is re-created finds the old or the new one, never half of one."""
        Stream.create("baldr1", SHAPE, np.int32, shm_dir).close()
        done = threading.Event()

        def recreate():
            for _ in range(50):
                Stream.create("baldr1", SHAPE, np.int32, shm_dir).close()
            done.set()

        thread = threading.Thread(target=recreate)
        thread.start()
        opened = 0
        while not done.is_set():
            with Stream.open("baldr1", shm_dir, shape=SHAPE, dtype=np.int32):
                opened += 1
        thread.join()
        assert opened > 0
        assert [path.name for path in shm_dir.iterdir()] == ["baldr1.im.shm"]

    def test_recreation_in_place(self, camera, reader, shm_dir):
        camera.write(np.ones(SHAPE, np.int32))
        with Stream.create("baldr1", SHAPE, np.int32, shm_dir, in_place=True) as successor:
            assert reader.is_current() == "re-created in place"
            assert successor.inode == reader.inode
            assert successor.counter() == 0
            assert not successor.read()[0].any()
            assert [semaphore.value() for semaphore in reader.semaphores] == 10 * [0]
            assert reader.log_semaphore.value() == 0
            for call in (reader.read, reader.counter, lambda: camera.write(np.ones(SHAPE, np.int32))):
                with pytest.raises(BackendError, match=r"baldr1.*re-created in place; open it again"):
                    call()

    def test_recreation_in_place_under_a_waiter(self, camera, reader, shm_dir):
        """The wait of a plain `sem_wait` would never end; ours does, and the next frame is seen."""
        woken = []
        thread = threading.Thread(target=lambda: woken.append(reader.wait(1, 30.0)))
        thread.start()
        with Stream.create("baldr1", SHAPE, np.int32, shm_dir, in_place=True) as successor:
            successor.write(np.ones(SHAPE, np.int32))
            thread.join(30.0)
        assert woken == [True]
        assert reader.is_current() == "re-created in place"

    def test_counter_that_went_back_counts_as_recreation(self, camera, reader):
        """Not every writer keeps the creation time."""
        camera.write(np.ones(SHAPE, np.int32))
        camera.write(np.ones(SHAPE, np.int32))
        assert reader.is_current() is None
        camera._file.write_at(240, bytes(8))
        assert reader.is_current() == "re-created in place"
        assert reader.is_current() == "re-created in place"

    def test_other_size_in_place(self, camera, reader, shm_dir):
        Stream.create("baldr1", (8, 8), np.int16, shm_dir, in_place=True).close()
        assert reader.is_current() == "shrunk"
        with pytest.raises(BackendError, match=r"baldr1.*has shrunk: it ends at byte"):
            reader.read()
        before = reader.path.read_bytes()
        with pytest.raises(BackendError, match="has shrunk"):
            camera.write(np.ones(SHAPE, np.int32))
        assert reader.path.read_bytes() == before


class TestDeleted:
    def test_deletion(self, camera, reader, shm_dir):
        assert Stream.destroy("baldr1", shm_dir)
        assert reader.is_current() == "deleted"
        for call in (reader.read, lambda: camera.write(np.ones(SHAPE, np.int32)), camera.post):
            with pytest.raises(BackendError, match=r"baldr1.*was deleted or replaced; open it again"):
                call()
        assert not reader.wait(1, 0.06)
        assert list(shm_dir.iterdir()) == []
        assert not list(shm_dir.parent.glob(f"sem.*{shm_dir.name}.*"))
        assert not Stream.destroy("baldr1", shm_dir)

    def test_deletion_of_a_broken_stream(self, shm_dir):
        stream_path("broken", shm_dir).write_bytes(b"?")
        assert Stream.destroy("broken", shm_dir)

    @pytest.mark.parametrize("size", [0, 200, 336, 3000])
    def test_cut_file_is_an_error_never_a_signal(self, size, camera, reader):
        os.truncate(reader.path, size)
        assert reader.is_current() == "shrunk"
        with pytest.raises(BackendError, match="has shrunk"):
            reader.read()
        with pytest.raises(BackendError, match="has shrunk"):
            camera.write(np.ones(SHAPE, np.int32))
        assert reader.path.stat().st_size == size

    def test_file_cut_during_the_copy(self, reader, monkeypatch):
        read_into = reader._file.read_into

        def cut_before(array, offset):
            if offset == 336:
                os.truncate(reader.path, 3000)
            read_into(array, offset)

        monkeypatch.setattr(reader._file, "read_into", cut_before)
        with pytest.raises(BackendError, match=r"has shrunk: it ends at byte 3000"):
            reader.read()
