"""Opening, reading, writing, posting and keywords of one stream."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams import CNT0, DATATYPES, VERSION, WRITE, Keyword, Stream, stream_path


@pytest.fixture
def camera(shm_dir):
    with Stream.create("baldr1", (4, 6), np.int32, shm_dir) as stream:
        yield stream


def patch(path, offset, data):
    """Change bytes of a file behind the stream's back."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("dtype", DATATYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)], ids=str)
def test_what_is_written_can_be_read(shape, dtype, shm_dir):
    random = np.random.default_rng(1)
    data = np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)  # NaN too
    with Stream.create("any", shape, dtype, shm_dir) as writer:
        writer.write(data)
        with Stream.open("any", shm_dir, shape=shape, dtype=dtype) as reader:
            found, count = reader.read()
    assert count == 1
    assert found.dtype == dtype
    assert found.shape == shape
    assert found.tobytes() == data.tobytes()


def test_x_runs_fastest(camera):
    """numpy (y, x) is size (x, y) of the header, x fastest: pixel (2, 5) is number 2*6 + 5."""
    image = np.zeros((4, 6), np.int32)
    image[2, 5] = 7
    camera.write(image)
    raw = camera.path.read_bytes()
    assert struct.unpack_from("<3I", raw, 116) == (6, 4, 0)
    assert struct.unpack_from("<i", raw, 336 + 4 * (2 * 6 + 5)) == (7,)


def test_attributes_describe_the_stream(camera, shm_dir):
    assert camera.name == "baldr1"
    assert camera.path == stream_path("baldr1", shm_dir)
    assert camera.shape == (4, 6)
    assert camera.dtype == np.int32
    assert (camera.nbytes, camera.data_offset) == (96, 336)
    assert camera.n_semaphores == len(camera.semaphores) == 10
    assert all(semaphore.address for semaphore in camera.semaphores)
    assert camera.inode == camera.path.stat().st_ino
    assert camera.fd >= 0


class TestWrite:
    def test_counts_and_posts(self, camera):
        camera.write(np.ones((4, 6), np.int32))
        camera.write(np.ones((4, 6), np.int32))
        header = camera.header()
        assert (header["cnt0"], header["cnt1"], header["cnt2"], header["write"]) == (2, 2, 0, 0)
        assert camera.counter() == 2
        assert [semaphore.value() for semaphore in camera.semaphores] == 10 * [2]
        assert camera.log_semaphore.value() == 2

    def test_notes_time_and_process(self, camera):
        camera.write(np.ones((4, 6), np.int32))
        header = camera.header()
        assert tuple(header["writetime"]) >= tuple(header["creationtime"])
        waiting, posting = camera.semaphore_pids()
        assert waiting.tolist() == 10 * [-1]
        assert len(set(posting)) == 1
        assert posting[0] > 0

    def test_posts_stop_at_ten(self, camera):
        for _ in range(13):
            camera.write(np.ones((4, 6), np.int32))
        assert [semaphore.value() for semaphore in camera.semaphores] == 10 * [10]
        assert camera.log_semaphore.value() == 10
        assert camera.counter() == 13

    def test_without_posts(self, camera):
        camera.write(np.ones((4, 6), np.int32), post=False)
        assert camera.counter() == 1
        assert not camera.semaphores[1].value()

    @pytest.mark.parametrize(("count_first", "at_post"), [(True, (1, 1)), (False, (0, 0))])
    def test_order_of_flag_count_and_posts(self, count_first, at_post, camera, monkeypatch):
        """A DM channel counts, posts and lowers the flag; a camera stream lowers it, posts and counts."""
        seen = []
        post = camera.semaphores[0].post

        def spy(cap):
            seen.append((camera.counter(), int(camera.header()["write"])))
            return post(cap)

        monkeypatch.setattr(camera.semaphores[0], "post", spy)
        camera.write(np.ones((4, 6), np.int32), count_first=count_first)
        assert seen == [at_post]
        assert (camera.counter(), camera.header()["write"]) == (1, 0)

    def test_numbers_of_the_same_kind_are_converted(self, camera):
        camera.write([[1, 2, 3, 4, 5, 6]] * 4)
        assert camera.read()[0][3].tolist() == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize(
        "data", [np.zeros((6, 4), np.int32), np.zeros(24, np.int32), np.zeros((4, 6), np.float64)], ids=str
    )
    def test_other_shapes_and_kinds_are_refused(self, data, camera):
        with pytest.raises(RequestError, match=r"stream baldr1: data of .*expected"):
            camera.write(data)
        assert camera.counter() == 0

    def test_reader_may_not_write(self, camera, shm_dir):
        with Stream.open("baldr1", shm_dir) as reader, pytest.raises(BackendError, match="reading only"):
            reader.write(np.ones((4, 6), np.int32))

    def test_reader_may_post(self, camera, shm_dir):
        """A DM channel's writer triggers the combined stream, which is not its own."""
        with Stream.open("baldr1", shm_dir) as reader:
            reader.post(1)
        assert [semaphore.value() for semaphore in camera.semaphores] == [0, 1] + 8 * [0]
        assert camera.log_semaphore.value() == 1

    @pytest.mark.parametrize("index", [10, 99])
    def test_missing_semaphore_is_named(self, index, camera):
        with pytest.raises(RequestError, match=f"no semaphore {index}, it has 10"):
            camera.post(index)
        with pytest.raises(RequestError, match=f"no semaphore {index}, it has 10"):
            camera.wait(index, 0.0)


class TestRead:
    def test_raised_write_flag_ends_in_an_error(self, camera):
        patch(camera.path, WRITE, b"\1")
        with pytest.raises(BackendError, match="no stable copy in 30 attempts, its write flag stays up"):
            camera.read(retries=30)

    def test_flag_that_falls_in_time_does_not(self, camera):
        patch(camera.path, WRITE, b"\1")
        timer = threading.Timer(0.005, patch, (camera.path, WRITE, b"\0"))
        timer.start()
        assert camera.read(retries=10_000)[1] == 0
        timer.join()

    @pytest.mark.parametrize("change", [(CNT0, b"\5"), (336, b"\5")], ids=["counter", "data"])
    def test_copy_is_repeated_when_something_changed_meanwhile(self, change, camera, monkeypatch):
        """The data alone can change: a camera stream counts late, and its flag may be down again."""
        read_into, copies = camera._file.read_into, []

        def disturbed(array, offset):
            read_into(array, offset)
            if offset == 336:
                copies.append(offset)
                if len(copies) == 1:
                    patch(camera.path, *change)

        monkeypatch.setattr(camera._file, "read_into", disturbed)
        data, count = camera.read()
        assert len(copies) == 4
        assert count == (5 if change[0] == CNT0 else 0)
        assert data[0, 0] == (0 if change[0] == CNT0 else 5)

    def test_data_are_a_copy(self, camera):
        first, _ = camera.read()
        first += 1
        assert not camera.read()[0].any()

    def test_closed_stream_says_so(self, camera):
        camera.close()
        camera.close()
        assert camera.fd == -1
        for call in (camera.read, camera.counter, camera.header, lambda: camera.write(np.ones((4, 6), int))):
            with pytest.raises(BackendError, match=r"baldr1.*closed"):
                call()
        assert "closed" in repr(camera)


class TestRing:
    @pytest.fixture
    def ring(self, shm_dir):
        with Stream.create("cred1", (3, 2, 4), np.uint16, shm_dir, circular=True) as stream:
            yield stream

    def test_newest_slice_is_the_last_one_counted(self, ring):
        for number in range(1, 9):
            ring.write_slice(np.full((2, 4), number, np.uint16))
            data, count = ring.newest_slice()
            assert count == number
            assert data.tolist() == [[number] * 4] * 2
        assert ring.read()[0][:, 0, 0].tolist() == [7, 8, 6]
        assert ring.header()["cnt1"] == 8 % 3  # the slice to be written next, as in the camera's ring
        assert ring.semaphores[1].value() == 8

    def test_tables_follow_the_slices(self, ring):
        for number in range(1, 6):
            ring.write_slice(np.full((2, 4), number, np.uint16))
        atime, writetime, count = ring.slice_tables()
        assert count.tolist() == [4, 5, 3]
        assert (atime == writetime).all()
        assert atime.argsort().tolist() == [2, 0, 1]
        assert atime.min() >= ring.creation_time_ns

    def test_slice_being_overwritten_is_read_again(self, ring, monkeypatch):
        """Two frames later the writer is busy with the slice that we are copying."""
        ring.write_slice(np.full((2, 4), 1, np.uint16))
        read_into, counts = ring._file.read_into, []

        def overtaken(array, offset):
            read_into(array, offset)
            if offset >= 336:
                counts.append(offset)
                if len(counts) == 1:
                    ring._file.write_at(CNT0, (3).to_bytes(8, "little"))

        monkeypatch.setattr(ring._file, "read_into", overtaken)
        assert ring.newest_slice()[1] == 3
        assert counts == [336, 336 + 2 * 16]

    def test_single_slice(self, shm_dir):
        with Stream.create("one", (1, 2, 2), np.uint8, shm_dir) as stream:
            stream.write_slice(np.ones((2, 2), np.uint8))
            stream.write_slice(np.full((2, 2), 2, np.uint8))
            assert stream.newest_slice()[0].tolist() == [[2, 2], [2, 2]]

    def test_plane_stream_has_no_slices(self, camera):
        for call in (camera.newest_slice, lambda: camera.write_slice(np.ones((4, 6), np.int32))):
            with pytest.raises(RequestError, match="no third axis"):
                call()
        with pytest.raises(RequestError, match="not circular"):
            camera.slice_tables()


class TestOpen:
    def test_missing_stream(self, shm_dir):
        with pytest.raises(BackendError, match=r"baldr9\.im\.shm: no such stream"):
            Stream.open("baldr9", shm_dir)

    @pytest.mark.parametrize(
        ("offset", "data", "message"),
        [
            (0, b"0.0.02\0", r"found version '0\.0\.02', expected '0\.0\.01'"),
            (0, b"xaosim".ljust(32), r"found version 'xaosim +', expected '0\.0\.01'"),
            (112, b"\0", "found 0 axes"),
            (112, b"\3", r"found 3 axes of sizes \(6, 4, 0\), expected 1 to 3 of at least 1"),
            (112, b"\7", "found 7 axes"),
            (116, b"\7", r"found 24 elements, expected 28 for axes \(7, 4\)"),
            (136, b"\0", "found data type code 0, expected 1 to 13"),
            (136, b"\x0e", "found data type code 14, expected 1 to 13"),
            (136, b"\x0a", r"found 1712 bytes, expected 1808 for \(4, 6\) of float64"),
            (217, b"\0", "found data at location 0, expected -1"),
            (266, b"\xff\xff", "found 1712 bytes, expected"),
        ],
    )
    def test_wrong_header(self, offset, data, message, camera, shm_dir):
        patch(camera.path, offset, data)
        with pytest.raises(BackendError, match=rf"baldr1\.im\.shm: {message}"):
            Stream.open("baldr1", shm_dir)

    @pytest.mark.parametrize(
        ("expected", "message"),
        [
            ({"shape": (6, 4)}, r"found shape \(4, 6\), expected \(6, 4\)"),
            ({"dtype": np.uint16}, "found data type int32, expected uint16"),
        ],
    )
    def test_unexpected_content(self, expected, message, camera, shm_dir):
        with pytest.raises(BackendError, match=rf"baldr1\.im\.shm: {message}"):
            Stream.open("baldr1", shm_dir, **expected)

    @pytest.mark.parametrize(("size", "expected"), [(0, 336), (335, 336), (336, 1712), (1711, 1712)])
    def test_short_file(self, size, expected, camera, shm_dir):
        with camera.path.open("r+b") as file:
            file.truncate(size)
        with pytest.raises(
            BackendError, match=rf"baldr1\.im\.shm: found {size} bytes, expected.* {expected}"
        ):
            Stream.open("baldr1", shm_dir)

    def test_longer_file_is_accepted(self, camera, shm_dir):
        with camera.path.open("r+b") as file:
            file.truncate(4096)
        Stream.open("baldr1", shm_dir).close()

    @pytest.mark.parametrize("accept", ["9.9", ("8.8", "9.9")])
    def test_other_version_is_accepted_when_named(self, accept, camera, shm_dir):
        patch(camera.path, 0, b"9.9".ljust(32))
        Stream.open("baldr1", shm_dir, accept_version=accept).close()
        patch(camera.path, 0, VERSION.encode().ljust(32, b"\0"))
        Stream.open("baldr1", shm_dir, accept_version=accept).close()

    def test_directory_in_place_of_a_file(self, shm_dir):
        stream_path("odd", shm_dir).mkdir()
        with pytest.raises(BackendError, match=r"odd\.im\.shm: is not a regular file"):
            Stream.open("odd", shm_dir)

    def test_missing_semaphores_are_created(self, camera, shm_dir):
        for semaphore in (*camera.semaphores, camera.log_semaphore):
            semaphore.unlink(semaphore.name)
        with Stream.open("baldr1", shm_dir) as reader:
            assert [semaphore.value() for semaphore in reader.semaphores] == 10 * [0]
            reader.post(3)
            with Stream.open("baldr1", shm_dir) as other:
                assert other.wait(3, 0.0)

    def test_failed_opening_leaves_nothing_open(self, camera, shm_dir):
        def open_files():
            return len(list(Path("/proc/self/fd").iterdir()))

        before = open_files()
        with pytest.raises(BackendError):
            Stream.open("baldr1", shm_dir, shape=(1, 1))
        patch(camera.path, 0, b"?")
        with pytest.raises(BackendError):
            Stream.open("baldr1", shm_dir)
        assert open_files() == before


class TestKeywords:
    @pytest.mark.parametrize(
        "value", [0, -(2**63), 2**63 - 1, 0.1, float("inf"), "", "fifteen letters"], ids=repr
    )
    def test_value_and_type_survive(self, value, camera, shm_dir):
        camera.set_keyword("FPS", value, "frame rate")
        with Stream.open("baldr1", shm_dir) as reader:
            found = reader.keywords()
        assert found == {"FPS": Keyword("FPS", value, "frame rate")}
        assert type(found["FPS"].value) is type(value)

    def test_bytes_are_those_of_the_library(self, camera):
        camera.set_keyword("GAIN", 5, "detector gain")
        camera.set_keyword("FPS", 1000.5, "Hz")
        camera.set_keyword("MODE", "CDS", "")
        start = 336 + 96
        raw = camera.path.read_bytes()[start : start + 4 * 120]
        text = struct.Struct("=16s c7x 16s 80s")
        assert struct.unpack_from("=16s c7x q8x 80s", raw, 0)[:3] == (b"GAIN".ljust(16, b"\0"), b"L", 5)
        assert struct.unpack_from("=16s c7x d8x 80s", raw, 120)[1:] == (b"D", 1000.5, b"Hz".ljust(80, b"\0"))
        assert text.unpack_from(raw, 240)[:3] == (b"MODE".ljust(16, b"\0"), b"S", b"CDS".ljust(16, b"\0"))
        assert text.unpack_from(raw, 360)[1] == b"N"

    def test_setting_again_replaces(self, camera):
        camera.set_keyword("A", 1)
        camera.set_keyword("B", 2)
        camera.set_keyword("A", "three")
        assert camera.keywords() == {"A": Keyword("A", "three"), "B": Keyword("B", 2)}

    def test_full_table(self, camera):
        for number in range(10):
            camera.set_keyword(f"K{number}", number)
        camera.set_keyword("K9", 99)
        with pytest.raises(RequestError, match="no place for keyword K10, all 10 are in use"):
            camera.set_keyword("K10", 10)

    def test_names_padded_with_blanks_are_understood(self, camera):
        patch(
            camera.path, 336 + 96, struct.pack("=16s c7x q8x 80s", b"FPS".ljust(16), b"L", 7, b"Hz".ljust(80))
        )
        assert camera.keywords() == {"FPS": Keyword("FPS", 7, "Hz")}

    @pytest.mark.parametrize(
        ("name", "value", "comment"),
        [
            ("", 1, ""), (16 * "n", 1, ""), ("n\0", 1, ""), ("n", 16 * "v", ""), ("n", 1, 80 * "c"),
            ("n", 2**63, ""), ("n", True, ""), ("n", None, ""), ("\u00b5", 1, ""),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused(self, name, value, comment, camera):
        with pytest.raises(RequestError, match="keyword"):
            camera.set_keyword(name, value, comment)
        assert camera.keywords() == {}


def test_stream_without_semaphores_and_keywords(shm_dir):
    with Stream.create("bare", (3,), np.float16, shm_dir, semaphores=0, keywords=0) as stream:
        assert stream.path.stat().st_size == 336 + 6
        stream.write(np.ones(3, np.float16))
        assert stream.keywords() == {}
        assert stream.log_semaphore is None
        assert [table.tolist() for table in stream.semaphore_pids()] == [[], []]
    assert not list(shm_dir.parent.glob(f"sem.*{shm_dir.name}*"))
