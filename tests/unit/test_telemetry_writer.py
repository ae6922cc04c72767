"""The telemetry thread: what is asked of it, in the order in which it was asked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import pytest

from baldr_tango.errors import ConfigError
from baldr_tango.telemetry import TelemetryWriter
from baldr_tango.telemetry.reader import TelemetryFile, list_files
from tests.unit.telemetry_support import (
    FIRST_FRAME,
    assert_records,
    feed,
    make_ring,
    make_settings,
    wait_until,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def make_writer(tmp_path):
    """Start writers in `tmp_path`; all are stopped, and none may leave its thread."""
    writers = []

    def make(ring, describe=dict, *, directory=tmp_path, **changes):
        writers.append(TelemetryWriter(ring, make_settings(directory, **changes), 1, describe))
        writers[-1].start()
        return writers[-1]

    yield make
    assert all(writer.stop() for writer in writers)
    assert not [thread for thread in threading.enumerate() if thread.name == "telemetry-beam1"]


def read(path):
    with TelemetryFile(path) as file:
        return file.records()


def test_nothing_is_recorded_until_it_is_asked_for(make_writer, tmp_path):
    ring = make_ring()
    writer = make_writer(ring)
    feed(ring, 10)
    assert writer.flush()
    assert not writer.is_recording
    assert list_files(tmp_path) == []


def test_recording_is_from_the_command_on_to_the_command_off(make_writer, tmp_path):
    ring = make_ring()
    writer = make_writer(ring)
    feed(ring, 10)
    writer.record(True)
    feed(ring, 5)
    writer.record(False)
    feed(ring, 5)
    writer.record(True)
    feed(ring, 2)
    assert writer.flush()
    status = writer.status()
    assert status.recording
    assert (status.frames_written, status.overruns, status.files_written) == (7, 0, 2)
    first, second = list_files(tmp_path)
    assert status.file == str(second)
    assert_records(read(first), range(10, 15))
    assert_records(read(second), range(20, 22))


def test_chunks_are_written_without_being_asked_for(make_writer):
    ring = make_ring()
    writer = make_writer(ring, chunk_s=0.001)
    writer.record(True)
    for total in (10, 20):
        feed(ring, 10)
        wait_until(lambda total=total: writer.status().frames_written == total)
    assert writer.status().chunks >= 2


def test_a_fast_loop_is_visited_before_its_ring_is_full(make_writer):
    ring = make_ring(1000)
    writer = make_writer(ring, chunk_s=0.5)
    assert writer._pause_s(ring, 100.0) == 0.5
    assert writer._pause_s(ring, 10_000.0) == pytest.approx(0.025)
    assert writer._pause_s(ring, 0.0) == 0.5


def test_the_settings_can_ask_for_recording_from_the_start(make_writer, tmp_path):
    ring = make_ring()
    writer = make_writer(ring, record=True)
    feed(ring, 3)
    assert writer.is_recording
    assert writer.flush()
    assert_records(read(list_files(tmp_path)[0]), range(3))


def test_stop_writes_the_rest_and_start_goes_on(make_writer, tmp_path):
    ring = make_ring()
    writer = make_writer(ring)
    writer.record(True)
    feed(ring, 4)
    assert writer.stop()
    assert writer.stop()
    status = writer.status()
    assert (status.requested, status.recording, status.frames_written) == (True, False, 4)
    assert not writer.flush()
    feed(ring, 4)
    writer.start()
    writer.start()
    feed(ring, 4)
    assert writer.stop()
    first, second = list_files(tmp_path)
    assert_records(read(first), range(4))
    assert_records(read(second), range(8, 12))


def test_what_is_asked_of_a_stopped_thread_counts_when_it_starts(tmp_path):
    old, new = make_ring(), make_ring()
    writer = TelemetryWriter(old, make_settings(tmp_path), 1)
    writer.record(True)
    writer.replace_ring(new)
    writer.start()
    feed(new, 5)
    assert writer.stop()
    assert_records(read(list_files(tmp_path)[0]), range(5))


def test_a_new_configuration_begins_a_new_file_with_its_own_description(make_writer, tmp_path):
    masks = iter(["H3", "H5"])
    old, new = make_ring(), make_ring(100)
    writer = make_writer(old, lambda: {"mask": next(masks)})
    writer.record(True)
    feed(old, 20)
    writer.replace_ring(new)
    feed(new, 30)
    assert writer.flush()
    first, second = (TelemetryFile(path) for path in list_files(tmp_path))
    with first, second:
        assert (first.attributes["mask"], second.attributes["mask"]) == ("H3", "H5")
        assert (first.is_finished, second.is_finished) == (True, False)
        assert_records(first.records(), range(20))
        assert_records(second.records(), range(30))


def test_the_ring_can_be_saved_without_recording(make_writer, tmp_path):
    ring = make_ring(16)
    writer = make_writer(ring)
    assert writer.save()
    assert list_files(tmp_path) == []
    feed(ring, 40)
    assert writer.save()
    (path,) = list_files(tmp_path)
    assert writer.status().file == str(path)
    assert_records(read(path), range(25, 40))
    assert writer.status().overruns == 0
    assert not writer.is_recording


def test_saving_while_recording_flushes_the_file(make_writer, tmp_path):
    ring = make_ring()
    writer = make_writer(ring)
    writer.record(True)
    feed(ring, 7)
    assert writer.save()
    (path,) = list_files(tmp_path)
    assert_records(read(path), range(7))


def test_trouble_with_the_disk_is_a_status_and_ends_by_itself(make_writer, tmp_path):
    directory = tmp_path / "telemetry"
    directory.write_text("a regular file where the directory should be")
    ring = make_ring()
    writer = make_writer(ring, directory=directory, chunk_s=0.001)
    writer.record(True)
    wait_until(lambda: bool(writer.status().error))
    assert "Not a directory" in writer.status().error
    assert (writer.status().requested, writer.is_recording) == (True, False)
    feed(ring, 10)
    assert not writer.flush()
    directory.unlink()
    wait_until(lambda: writer.status().frames_written == 10)
    assert writer.is_recording
    assert_records(read(list_files(directory)[0]), range(10))


def test_a_writer_that_is_held_up_loses_whole_chunks_and_keeps_the_one_it_holds(make_writer, tmp_path):
    """Another thread sits on the HDF5 library, as a slow disk would make it, while the loop goes on."""
    ring = make_ring(64)
    writer = make_writer(ring)
    writer.record(True)
    feed(ring, 10)
    assert writer.flush()
    done = threading.Thread(target=writer.flush)
    with h5py._objects.phil:
        feed(ring, 20)
        done.start()
        wait_until(lambda: writer._recorder._held is not None)
        assert writer._recorder._held.first == 10
        feed(ring, 300)
        assert writer.status().overruns == 330 - 63 - 18  # records 18 to 266: gone, and counted at once
    done.join()
    assert writer.flush()
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        gap = (30 - 18) + 8 * -(-(267 - 30) // 8)  # all that was asked for, then whole chunks
        assert file.gaps.tolist() == [(18, 18, gap, FIRST_FRAME + 18, FIRST_FRAME + 17 + gap)]
        assert_records(file.records(), [*range(18), *range(18 + gap, 330)])
    assert writer.status().overruns == gap
    assert writer.is_recording


def test_fields_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"found u_lo, expected.*u_LO"):
        TelemetryWriter(make_ring(), make_settings(tmp_path, fields=("u_LO", "u_lo")), 1)


def test_a_running_file_can_be_read_in_its_own_process(make_writer, tmp_path):
    ring = make_ring()
    writer = make_writer(ring)
    writer.record(True)
    feed(ring, 10)
    assert writer.flush()
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        assert not file.is_finished
        assert_records(file.records(), range(10))
        feed(ring, 10)
        assert writer.flush()
        assert_records(file.records(), range(20))


def test_a_running_file_can_be_followed_and_survives_the_kill_of_its_writer(tmp_path):
    command = [sys.executable, "-m", "tests.unit.telemetry_process", "record", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            flushed = json.loads(process.stdout.readline())
            path = flushed["file"]
            with TelemetryFile(path) as live:
                assert not live.is_finished
                for _ in range(25):
                    flushed = json.loads(process.stdout.readline())
                    rows = len(live)
                    assert rows >= flushed["flushed"]
                    assert_records(live.records(rows - 15, rows), range(rows - 15, rows), "live")
                    frames = live.records(0, rows, ("frame",))["frame"]
                    assert (frames[1:] - frames[:-1] == 1).all()
        finally:
            process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            flushed = json.loads(line)
    assert process.returncode == -signal.SIGKILL
    with TelemetryFile(path) as left:
        assert not left.is_finished
        assert len(left) >= flushed["flushed"] > 500
        assert_records(left.records(), range(len(left)))
        assert_records(left.images(0, len(left)), range(len(left)))
        assert left.gaps.size == 0
        assert left.summary()["frames"] == len(left)
        assert left.attributes["mask"] == "H3"
