"""Telemetry files: contents, names, trouble with the disk. No thread: each step is asked for."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.telemetry import files, recording
from baldr_tango.telemetry.chunks import chunk_records
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.reader import TelemetryFile, list_files
from baldr_tango.telemetry.recorder import Recorder
from baldr_tango.telemetry.recording import RecordingFile
from baldr_tango.telemetry.ring import TelemetryRing
from tests.unit.telemetry_support import (
    ALL_FIELDS,
    FIRST_FRAME,
    PERIOD_NS,
    SIZES,
    assert_records,
    feed,
    make_ring,
    make_settings,
    value,
)

REPOSITORY = Path(__file__).parents[2]
LOG = logging.getLogger("tests.telemetry")


def make_recorder(ring, directory, describe=dict, **changes):
    recorder = Recorder(ring, make_settings(directory, **changes), 2, describe, LOG)
    recorder.begin(ring.write_index)
    return recorder


def read(path):
    with TelemetryFile(path) as file:
        return file.records()


def joined(paths):
    """Records of several files in a row."""
    parts = [read(path) for path in paths]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def steps_of(mode, directory):
    """What `telemetry_process` says; it must end by itself and well."""
    command = [sys.executable, "-m", "tests.unit.telemetry_process", mode, str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_file_holds_every_record_of_every_field_with_unit_and_meaning(tmp_path):
    ring = make_ring(32)
    recorder = make_recorder(ring, tmp_path)
    for count in (1, 30, 17, 0, 5):  # the ring's end is crossed twice
        feed(ring, count)
        assert recorder.write(ring.write_index)
    assert recorder.end(ring.write_index)
    (path,) = list_files(tmp_path)
    with TelemetryFile(path) as file:
        assert file.is_finished
        assert len(file) == 53
        assert_records(file.records(), range(53))
        assert_records(file.records(-3, fields=("frame", "u_HO")), range(50, 53))
        assert set(file.fields) == set(ALL_FIELDS) - {"img"}
        for name, field in file.fields.items():
            assert (field.unit, field.doc) == (FIELD_BY_NAME[name].unit, FIELD_BY_NAME[name].doc)
        assert file.gaps.size == 0
        with pytest.raises(RequestError, match="u_lo"):
            file.records(fields=("u_lo",))
    with h5py.File(path) as plain:  # any HDF5 program can open it
        assert plain["signal"].attrs["description"] == FIELD_BY_NAME["signal"].doc
    counters = recorder.counters
    assert (counters.frames_written, counters.files_written) == (53, 1)
    assert counters.chunks == sum(-(-count // chunk_records(ring)) for count in (1, 30, 17, 5))
    assert counters.bytes_written == 53 * ring.record_nbytes
    assert counters.file == str(path)


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_compressed_files_hold_the_same(tmp_path, compression):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, compression=compression)
    feed(ring, 40)
    assert recorder.end(40)
    assert_records(read(list_files(tmp_path)[0]), range(40))


def test_only_the_wanted_fields_are_recorded(tmp_path):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, fields=("u_LO",))
    feed(ring, 4)
    recorder.end(4)
    records = read(list_files(tmp_path)[0])
    assert set(records) == {"frame", "time_ns", "u_LO"}
    assert_records(records, range(4))


@pytest.mark.parametrize(
    ("every", "expected"), [(1, list(range(30))), (7, [0, 7, 14, 21, 28]), (0, []), (1000, [0])]
)
def test_images_are_thinned_by_record_number_whatever_the_chunks(tmp_path, every, expected):
    ring = make_ring(16)
    recorder = make_recorder(ring, tmp_path, image_every=every)
    for count in (5, 5, 1, 13, 6):
        feed(ring, count)
        recorder.write(ring.write_index)
    recorder.end(30)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        images = file.images()
        assert len(file) == 30
    assert_records(images, expected)


def test_a_file_describes_itself(tmp_path):
    dark = np.linspace(0.0, 1.0, SIZES["P"])
    description = {
        "mask": "H3",
        "config_file": "calibration/baldr_config_2.toml",
        "fps": 1000.0,
        "ki": np.array([0.1, 0.2]),
        "dark": dark,
        "history": "x" * 100_000,
        "beam": 7,
        "closed": True,
        "nothing": None,
        "path": Path("a/b"),
    }
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, lambda: description)
    feed(ring, 1)
    recorder.end(1)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        attributes, reference = file.attributes, file.reference
    assert attributes["beam"] == 2  # the writer knows better
    assert attributes["mask"] == "H3"
    assert attributes["fps"] == 1000.0
    assert attributes["closed"] is True
    assert attributes["path"] == "a/b"
    assert "nothing" not in attributes
    assert attributes["ring_capacity"] == ring.capacity
    assert attributes["fields"] == list(ALL_FIELDS)
    np.testing.assert_array_equal(reference["dark"], dark)
    np.testing.assert_array_equal(reference["ki"], [0.1, 0.2])
    assert reference["history"] == description["history"]


def test_a_description_that_fails_does_not_stop_the_recording(tmp_path):
    def describe():
        raise KeyError("fps")

    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, describe)
    feed(ring, 3)
    assert recorder.end(3)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        assert "fps" in file.attributes["describe_error"]
        assert len(file) == 3


def test_times_are_converted_by_the_clock_pair_of_the_file(tmp_path):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 1)
    recorder.end(1)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        utc_ns, monotonic_ns = file.attributes["utc_ns"], file.attributes["monotonic_ns"]
        later = file.utc([monotonic_ns, monotonic_ns + 3 * 10**9 + 5])
    assert later.astype(np.int64).tolist() == [utc_ns, utc_ns + 3 * 10**9 + 5]
    now = time.time_ns() - time.monotonic_ns()
    assert abs(utc_ns - monotonic_ns - now) < 10**8


def test_a_chunk_that_the_loop_overwrites_while_it_is_copied_is_left_out_whole(tmp_path):
    class Overtaken(TelemetryRing):
        """The loop writes six records when the copy of the first chunk begins."""

        reads = 0

        def slices(self, start, stop):
            self.reads += 1
            if self.reads == 1:
                feed(self, 6)
            return super().slices(start, stop)

    ring = Overtaken(32, SIZES)
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 28)
    assert chunk_records(ring) == 4
    assert recorder.write(28)  # 34 written: the oldest record is 3, in the first chunk
    assert recorder.end(34)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        assert file.gaps.tolist() == [(0, 0, 4, -1, FIRST_FRAME + 3)]
        assert_records(file.records(), range(4, 34))
        assert_records(file.images(), range(4, 34))
    assert recorder.counters.overruns == 4


def test_overruns_are_counted_at_once_and_marked_in_the_file(tmp_path):
    ring = make_ring(8)
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 4)
    recorder.write(4)
    feed(ring, 20)
    assert recorder.counters.overruns == 13
    recorder.write(24)
    assert recorder.counters.overruns == 13
    feed(ring, 3)
    recorder.end(27)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        assert_records(file.records(), [*range(4), *range(17, 27)])
        assert file.gaps.tolist() == [(4, 4, 13, FIRST_FRAME + 4, FIRST_FRAME + 16)]
        row, record, count, *_ = file.gaps[0]
        assert file.records(row, row + 1)["frame"] == value("frame", record + count)
        assert file.summary()["lost_frames"] == 13
        assert file.summary()["missed_frames"] == 0


def test_what_is_missing_at_the_end_of_the_last_file_is_marked_too(tmp_path):
    ring = make_ring(8)
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 4)
    recorder.write(4)
    feed(ring, 26)
    recorder.end(10)  # asked for long ago: the loop is far beyond
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        assert_records(file.records(), range(4))
        assert file.gaps.tolist() == [(4, 4, 6, FIRST_FRAME + 4, -1)]
    assert recorder.counters.overruns == 6


@pytest.mark.parametrize("seed", range(8))
def test_a_writer_that_comes_too_late_drops_whole_chunks_and_tells_which(tmp_path, seed):
    """Whatever the schedule: rows and gaps are all records, each once, and gaps are whole chunks."""
    rng = np.random.default_rng(seed)
    ring = make_ring(64)
    recorder = make_recorder(ring, tmp_path, file_mb=0.02)  # several files
    for count in rng.choice((3, 11, 40, 70, 200), 12):
        feed(ring, count)
        assert recorder.write(ring.write_index)
    assert recorder.end(ring.write_index)
    total, size, next_record, lost = ring.write_index, chunk_records(ring), 0, 0
    for path in list_files(tmp_path):
        with TelemetryFile(path) as file:
            found, gaps = file.records(), file.gaps
        pieces = np.split(np.arange(len(found["frame"])), gaps["row"])
        for index, rows in enumerate(pieces):
            if index:
                _, record, count, first_frame, last_frame = gaps[index - 1]
                assert record == next_record
                assert count % size == 0
                assert last_frame == FIRST_FRAME + record + count - 1
                assert first_frame == (FIRST_FRAME + record if record else -1)
                next_record += count
                lost += count
            records = range(next_record, next_record + len(rows))
            assert_records({name: array[rows] for name, array in found.items()}, records)
            next_record += len(rows)
    assert next_record == total
    assert recorder.counters.overruns == lost > 0
    assert recorder.counters.frames_written == total - lost


def test_a_name_is_never_used_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(recording.time, "time_ns", lambda: 1_775_045_696_789_999_999)
    for count in (1, 2, 3):
        ring = make_ring()
        recorder = make_recorder(ring, tmp_path)
        feed(ring, count)
        recorder.end(count)
    found = list_files(tmp_path, 2)
    assert [path.name for path in found] == [
        "baldr_beam2_20260401T121456.789Z.h5",
        "baldr_beam2_20260401T121456.790Z.h5",
        "baldr_beam2_20260401T121456.791Z.h5",
    ]
    assert [len(read(path)["frame"]) for path in found] == [1, 2, 3]
    assert len(list((tmp_path / "beam2").iterdir())) == 3  # nothing else is left


def test_publishing_works_without_hard_links_and_still_replaces_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links")

    monkeypatch.setattr(files.os, "link", refuse)
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    with pytest.raises(FileExistsError):
        files.publish(tmp_path / "new", tmp_path / "old")
    files.publish(tmp_path / "new", tmp_path / "name")
    assert (tmp_path / "old").read_text() == "old"
    assert (tmp_path / "name").read_text() == "new"


def test_a_recording_without_a_frame_leaves_no_file(tmp_path):
    recorder = make_recorder(make_ring(), tmp_path)
    assert Path(recorder.counters.file).exists()
    assert recorder.end(0)
    assert list_files(tmp_path) == []


def test_a_file_that_somebody_deletes_is_replaced_by_a_new_one(tmp_path):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 3)
    recorder.write(3)
    list_files(tmp_path)[0].unlink()
    feed(ring, 4)
    assert recorder.end(7)
    assert_records(read(list_files(tmp_path)[0]), range(3, 7))


@pytest.mark.parametrize("limit", [{"file_mb": 0.001}, {"file_s": 1e-9}])
def test_files_are_rotated_by_size_and_by_age_without_losing_a_frame(tmp_path, limit):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, **limit)
    for _ in range(4):
        feed(ring, 10)
        recorder.write(ring.write_index)
    recorder.end(40)
    found = list_files(tmp_path, 2)
    assert len(found) == 4
    assert all(files.is_finished(path) for path in found)
    assert_records(joined(found), range(40))


def test_a_new_ring_begins_a_new_file_with_all_its_records(tmp_path):
    old, new = make_ring(), make_ring(16)
    recorder = make_recorder(old, tmp_path)
    feed(old, 30)
    feed(new, 10)
    assert recorder.swap(new, 30)
    feed(new, 4)
    assert recorder.end(14)
    first, second = list_files(tmp_path)
    assert_records(read(first), range(30))
    assert_records(read(second), range(14))
    assert recorder.counters.overruns == 0


def test_retention_deletes_the_oldest_of_its_own_files_and_nothing_else(tmp_path):
    folder = tmp_path / "beam2"
    (tmp_path / "beam3").mkdir()
    folder.mkdir()
    bystanders = [
        folder / "baldr_beam2_20200101T000000.000Z.h5",  # our name, not our content
        folder / "baldr_beam2_20200101T000001.000Z.h5",  # another beam's content
        folder / "baldr_beam2_20200101T000002.000Z.h5",  # a link
        folder / "notes.h5",
        tmp_path / "beam3" / "baldr_beam3_20200101T000000.000Z.h5",
    ]
    for path in bystanders[0], bystanders[3], bystanders[4]:
        path.write_text("not ours")
    with h5py.File(bystanders[1], "w", libver="v110") as other:
        other.attrs.update({"format": files.FORMAT, "format_version": 1, "beam": 3})
    bystanders[2].symlink_to(bystanders[1])
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, file_mb=0.001, keep_files=3)
    begun = []
    for _ in range(6):
        feed(ring, 10)
        recorder.write(ring.write_index)
        begun.append(Path(recorder.counters.file))
    recorder.end(60)
    assert [path for path in begun if path.exists()] == begun[-3:]
    assert all(path.exists() for path in bystanders)
    assert_records(joined(begun[-3:]), range(30, 60))


def test_old_files_that_cannot_be_deleted_do_not_stop_the_recording(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(files, "remove_oldest", refuse)
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 3)
    assert recorder.end(3)
    assert "Permission denied" in caplog.text
    assert_records(read(list_files(tmp_path)[0]), range(3))


def test_an_unwritable_directory_is_reported_once_and_tried_again(tmp_path, caplog):
    blocker = tmp_path / "telemetry"
    blocker.write_text("a regular file where the directory should be")
    ring = make_ring()
    recorder = make_recorder(ring, blocker)
    feed(ring, 10)
    for _ in range(3):
        assert not recorder.write(10)
        assert recorder.retry_at > 0
    assert "Not a directory" in recorder.counters.error
    assert str(blocker) in recorder.counters.error
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
    assert (recorder.counters.frames_written, recorder.counters.overruns) == (0, 0)

    blocker.unlink()
    assert recorder.write(10)
    assert recorder.counters.error == ""
    assert caplog.records[-1].message == "telemetry: recording again"
    recorder.end(10)
    assert_records(read(list_files(blocker)[0]), range(10))


def test_the_error_stays_while_the_loop_is_paused(tmp_path):
    blocker = tmp_path / "telemetry"
    blocker.write_text("")
    recorder = make_recorder(make_ring(), blocker)
    assert not recorder.write(0)
    assert recorder.counters.error


def test_frames_lost_while_nothing_could_be_written_are_marked(tmp_path):
    blocker = tmp_path / "telemetry"
    blocker.write_text("")
    ring = make_ring(8)
    recorder = make_recorder(ring, blocker)
    feed(ring, 20)
    assert not recorder.write(20)
    assert recorder.counters.overruns == 13
    blocker.unlink()
    assert recorder.end(20)
    assert recorder.counters.overruns == 13
    with TelemetryFile(list_files(blocker)[0]) as file:
        assert file.gaps.tolist() == [(0, 0, 13, -1, FIRST_FRAME + 12)]
        assert_records(file.records(), range(13, 20))


def test_what_can_never_be_written_counts_as_lost(tmp_path):
    blocker = tmp_path / "telemetry"
    blocker.write_text("")
    ring = make_ring()
    recorder = make_recorder(ring, blocker)
    feed(ring, 20)
    assert not recorder.end(20)
    assert recorder.counters.overruns == 20
    assert not recorder.is_active


def test_recording_stops_before_the_disk_is_full_and_begins_again(tmp_path, monkeypatch):
    free = 2000 * files.MEGABYTE
    monkeypatch.setattr(files, "free_bytes", lambda _: free)
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, min_free_mb=1000.0)
    feed(ring, 10)
    assert recorder.write(10)
    free = 999 * files.MEGABYTE
    feed(ring, 10)
    assert not recorder.write(20)
    assert "min_free_mb is 1000" in recorder.counters.error
    assert files.is_finished(list_files(tmp_path)[0])  # closed in good order
    free = 1001 * files.MEGABYTE  # not enough to be worth a new file
    assert not recorder.write(20)
    free = 1200 * files.MEGABYTE
    assert recorder.write(20)
    recorder.end(20)
    assert_records(joined(list_files(tmp_path)), range(20))


def test_a_file_that_may_not_grow_is_an_error_and_recording_goes_on_when_it_may(tmp_path):
    good, stuck, again = steps_of("limit", tmp_path)
    assert good["written"]
    assert good["recording"]
    assert not stuck["written"]
    assert not stuck["recording"]
    assert os.strerror(27) in stuck["error"]
    assert again["written"]
    assert again["recording"]
    assert_records(joined(list_files(tmp_path)), range(200))


def test_a_disk_that_is_full_inside_hdf5_costs_neither_the_process_nor_what_was_flushed(tmp_path):
    good, full, again = steps_of("fail", tmp_path)
    assert good["written"]
    assert not full["written"]
    assert os.strerror(28) in full["error"]
    assert again["written"]
    first, second = list_files(tmp_path)
    assert not files.is_finished(first)
    assert_records(read(first), range(100))
    assert_records(read(second), range(100, 300))


def test_a_creation_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(RecordingFile, "_create", refuse)
    recorder = make_recorder(make_ring(), tmp_path)
    assert "No space left" in recorder.counters.error
    assert list((tmp_path / "beam2").iterdir()) == []


def test_files_are_listed_by_beam_and_age(tmp_path):
    names = {
        2: ["baldr_beam2_20260401T000000.001Z.h5", "baldr_beam2_20260331T000000.000Z.h5"],
        10: ["baldr_beam10_20260401T000000.000Z.h5", "notes.txt", "baldr_beam2_20260401T000000.000Z.h5"],
    }
    for beam, some in names.items():
        (tmp_path / f"beam{beam}").mkdir()
        for name in some:
            (tmp_path / f"beam{beam}" / name).write_text("")
    assert [path.name for path in list_files(tmp_path)] == [names[2][1], names[10][0], names[2][0]]
    assert [path.name for path in list_files(tmp_path, 2)] == [names[2][1], names[2][0]]
    assert list_files(tmp_path / "missing") == list_files(tmp_path, 4) == []


def test_files_of_other_kinds_are_refused_with_a_reason(tmp_path):
    with pytest.raises(BackendError, match=r"missing\.h5: No such file"):
        TelemetryFile(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("hello, this is text")
    with pytest.raises(BackendError, match="not an HDF5 file"):
        TelemetryFile(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w", libver="v110"):
        pass
    with pytest.raises(BackendError, match="found format nothing"):
        TelemetryFile(tmp_path / "other.h5")
    with h5py.File(tmp_path / "newer.h5", "w", libver="v110") as newer:
        newer.attrs.update({"format": files.FORMAT, "format_version": files.FORMAT_VERSION + 1})
    with pytest.raises(BackendError, match="expected baldr-telemetry up to version"):
        TelemetryFile(tmp_path / "newer.h5")


def test_rows_that_not_every_field_has_are_cut(tmp_path):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path)
    feed(ring, 20)
    recorder.end(20)
    (path,) = list_files(tmp_path)
    with h5py.File(path, "r+") as damaged:
        damaged["u_HO"].resize(15, axis=0)
        damaged["frame"].resize(30, axis=0)
    assert_records(read(path), range(15))
    with h5py.File(path, "r+") as damaged:
        damaged["frame"][12:] = -1
    assert_records(read(path), range(12))


def test_the_summary_is_computed_from_the_records(tmp_path):
    ring = make_ring()
    recorder = make_recorder(ring, tmp_path, lambda: {"mask": "H5"})
    frames = [*range(10), *range(12, 22)]  # two camera frames never came
    for place, frame in enumerate(frames):
        ring.append(
            frame=frame,
            time_ns=frame * PERIOD_NS,
            flags=(place == 3) * 2,
            latency_ns=1000 * place,
            strehl=0.5,
        )
    recorder.end(20)
    with TelemetryFile(list_files(tmp_path)[0]) as file:
        summary = json.loads(json.dumps(file.summary()))
    assert summary["beam"] == 2
    assert summary["mask"] == "H5"
    assert summary["is_finished"]
    assert (summary["frames"], summary["images"], summary["lost_frames"]) == (20, 20, 0)
    assert summary["missed_frames"] == 2
    assert summary["duration_s"] == pytest.approx(0.021)
    assert summary["rate_hz"] == pytest.approx(19 / 0.021)
    assert (summary["flag_LIMITED"], summary["flag_SKIPPED"]) == (1, 0)
    assert summary["latency_p50_us"] == pytest.approx(9.5)
    assert summary["latency_max_us"] == pytest.approx(19.0)
    assert summary["mean_strehl"] == pytest.approx(0.5)
