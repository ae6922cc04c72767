"""What `baldr streams` has to say about sound and broken streams."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from baldr_tango.streams import Stream, stream_path
from baldr_tango.streams.inspect import describe_stream, describe_streams, list_streams


@pytest.fixture
def camera(shm_dir):
    with Stream.create("baldr1", (4, 6), np.int32, shm_dir) as stream:
        yield stream


def problems(stream):
    return describe_stream(stream.name, stream.path.parent)["problems"]


def patch(stream, offset, data):
    with stream.path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_sound_stream(camera, shm_dir):
    camera.write(np.ones((4, 6), np.int32))
    camera.set_keyword("FPS", 1000.0, "Hz")
    camera.wait(1, 0.0)
    found = describe_stream("baldr1", shm_dir)
    assert found["problems"] == []
    expected = {
        "name": "baldr1", "path": str(camera.path), "version": "0.0.01", "header_name": "baldr1",
        "shape": (4, 6), "dtype": "int32", "datatype": 6, "naxis": 2, "size": [6, 4, 0], "nelement": 24,
        "imagetype": 2, "circular": False, "shared": 1, "location": -1, "sem": 10, "NBkw": 10,
        "cnt0": 1, "cnt1": 1, "cnt2": 0, "write": 0, "file_size": 1712, "expected_size": 1712,
        "mode": "0600", "owner": os.getuid(), "inode": camera.inode, "creationtime": camera.creation_time_ns,
        "keywords": [{"name": "FPS", "value": 1000.0, "comment": "Hz"}],
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert 0 <= found["since_write_s"] <= found["age_s"]
    assert [entry["index"] for entry in found["semaphores"]] == list(range(10))
    assert [entry["value"] for entry in found["semaphores"]] == [1, 0] + 8 * [1]
    assert [entry["write_pid"] for entry in found["semaphores"]] == 10 * [os.getpid()]
    assert [entry["read_pid"] for entry in found["semaphores"]] == 10 * [-1]
    assert found["log_semaphore"]["value"] == 1


def test_streams_of_a_directory(camera, shm_dir):
    Stream.create("dm1", (12, 12), np.float64, shm_dir).close()
    (shm_dir / "notes.txt").write_text("not a stream")
    assert list_streams(shm_dir) == ["baldr1", "dm1"]
    found = describe_streams(shm_dir)
    assert [(one["name"], one["problems"]) for one in found] == [("baldr1", []), ("dm1", [])]
    assert found[1]["since_write_s"] is None
    assert list_streams(shm_dir / "absent") == describe_streams(shm_dir / "absent") == []


def test_looking_changes_nothing(camera, shm_dir):
    camera.semaphores[4].unlink(camera.semaphores[4].name)
    before = camera.path.read_bytes(), sorted(shm_dir.parent.glob(f"sem.*{shm_dir.name}*"))
    describe_stream("baldr1", shm_dir)
    assert (camera.path.read_bytes(), sorted(shm_dir.parent.glob(f"sem.*{shm_dir.name}*"))) == before


class TestProblems:
    def test_missing_stream(self, shm_dir):
        assert describe_stream("baldr9", shm_dir)["problems"] == ["no such stream"]

    @pytest.mark.parametrize("name", ["", "a/b"])
    def test_impossible_name(self, name, shm_dir):
        assert "stream name" in describe_stream(name, shm_dir)["problems"][0]

    def test_wrong_version(self, camera):
        patch(camera, 0, b"xaosim".ljust(32))
        (text,) = problems(camera)
        assert text.startswith("wrong version: found 'xaosim ")
        assert text.endswith("expected '0.0.01'")

    def test_data_elsewhere(self, camera):
        patch(camera, 217, b"\1")
        assert problems(camera) == ["data on GPU 1, not in this file"]

    def test_copied_file(self, camera, shm_dir):
        stream_path("copy", shm_dir).write_bytes(camera.path.read_bytes())
        assert describe_stream("copy", shm_dir)["problems"][0] == "wrong name: the header says 'baldr1'"

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "size mismatch: 0 bytes, a header needs 336"),
            (336, "size mismatch: 336 bytes, header says 1712"),
        ],
    )
    def test_size_mismatch(self, size, text, camera):
        os.truncate(camera.path, size)
        assert problems(camera) == [text]

    def test_missing_semaphores(self, camera):
        for semaphore in (camera.semaphores[3], camera.log_semaphore):
            semaphore.unlink(semaphore.name)
        found = problems(camera)
        assert [text.split(":")[0] for text in found] == ["no semaphore 3", "no semaphore log"]

    def test_no_semaphores(self, shm_dir):
        with Stream.create("bare", (4,), np.int8, shm_dir, semaphores=0) as stream:
            assert problems(stream) == ["no semaphores: nobody can wait for its frames"]

    def test_stuck_write_flag(self, camera):
        patch(camera, 264, b"\1")
        assert problems(camera) == ["write flag stuck: the writer stopped in the middle of a frame"]

    def test_unknown_type_and_axes(self, camera):
        patch(camera, 136, b"\x63")
        assert problems(camera) == ["found data type code 99, expected 1 to 13"]
        patch(camera, 116, struct.pack("<I", 0))
        assert problems(camera) == ["found 2 axes of sizes (0, 4), expected 1 to 3 of at least 1"]

    def test_semaphore_that_wakes_nobody(self, camera, monkeypatch):
        """The damage itself is made and mended in test_streams_semaphores."""
        damaged = camera.semaphores[2].name
        monkeypatch.setattr(
            "baldr_tango.streams.inspect.Semaphore.has_lost_waiters", lambda self: self.name == damaged
        )
        assert problems(camera) == ["semaphore 2 wakes nobody: it was reset while somebody waited"]

    def test_not_a_file(self, shm_dir):
        stream_path("odd", shm_dir).mkdir()
        assert describe_stream("odd", shm_dir)["problems"] == ["not a regular file"]
