"""Saved telemetry: the three formats against the legacy's, names, and what goes wrong."""

from __future__ import annotations

import json
import logging
import re
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from baldr_tango.errors import BackendError, StateError
from baldr_tango.telemetry import TelemetryFile, files, fits_file, saving
from baldr_tango.telemetry.ring import TelemetryRing
from baldr_tango.telemetry.saving import FORMATS, SavedTelemetry, Saver
from tests.unit.telemetry_support import FIRST_FRAME, SIZES, assert_records, feed, make_ring, value

LOG = logging.getLogger("baldr.test")
REAL_SIZES = {"P": 1024, "A": 140, "L": 2, "H": 140, "G": 144}

# Columns of the legacy table: name, form with the instrument's sizes, unit, field of the ring.
LEGACY_TABLE = (
    ("COUNTER", "1J", None, None),
    ("TIMESTAMPS", "1D", "microsec", "time_ns"),
    ("LO_SERVO_MODE", "1J", None, "LO_servo_mode"),
    ("HO_SERVO_MODE", "1J", None, "HO_servo_mode"),
    ("IMG", "1024D", None, "img"),
    ("IMG_DM", "140D", None, "img_dm"),
    ("SIGNAL", "140D", None, "signal"),
    ("E_LO", "2D", None, "e_LO"),
    ("U_LO", "2D", None, "u_LO"),
    ("E_HO", "140D", None, "e_HO"),
    ("U_HO", "140D", None, "u_HO"),
    ("C_LO", "144D", None, "c_LO"),
    ("C_HO", "144D", None, "c_HO"),
    ("C_INJ", "144D", None, "c_inj"),
    ("RMSE_EST", "1D", None, "rmse_est"),
    ("SNR", "1D", None, "snr"),
)
LEGACY_KEYS = {
    "counter",
    "timestamps",
    "LO_servo_mode",
    "HO_servo_mode",
    "img",
    "img_dm",
    "signal",
    "e_LO",
    "u_LO",
    "e_HO",
    "u_HO",
    "c_LO",
    "c_HO",
    "c_inj",
    "rmse_est",
    "snr",
}


def description(sizes: dict[str, int], **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "beam": 2,
        "mask": "H3",
        "mode": "bright",
        "frame_rate_hz": 1730.0,
        "camera_gain": 10.0,
        "boxcar": 5,
        "config_file": "/data/" + "long name/" * 20 + "baldr_config_2.toml",
        "software": "baldr-tango test",
        "dark": rng.uniform(900, 1100, sizes["P"]),
        "reference": rng.uniform(0, 1, sizes["A"]),
        "clear_pupil": rng.uniform(0, 1, sizes["A"]),
        "ki_lo": np.full(sizes["L"], 0.3),
        "ki_ho": np.linspace(0.1, 0.2, sizes["H"]),
        **more,
    }


def save(
    ring: TelemetryRing, directory: Path, format_name: str, saver: Saver | None = None, **more: Any
) -> SavedTelemetry:
    """Save, wait, and fail when that failed."""
    saver = saver or Saver(2, 0.0, LOG)
    saved = saver.save(ring, directory, format_name, description(ring.sizes, **more))
    assert saved.done.wait(30.0)
    assert saver.close(5.0)
    saved.check()
    return saved


def random_ring(sizes: dict[str, int], count: int, capacity: int) -> TelemetryRing:
    """A ring that has been filled more than once, with values of every size."""
    ring, rng = TelemetryRing(capacity, sizes), np.random.default_rng(5)
    for number in range(count):
        record = {
            name: rng.normal(0, 100, array.shape[1:]).astype(array.dtype)
            for name, array in ring.fields.items()
            if name not in ("LO_servo_mode", "HO_servo_mode", "frame", "time_ns", "flags")
        }
        ring.append(
            **record,
            frame=1000 + number,
            time_ns=10**12 + 577_000 * number,
            LO_servo_mode=number % 2,
            HO_servo_mode=1 - number % 2,
        )
    return ring


# FITS


def test_fits_has_the_legacy_table_column_by_column(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    ring = random_ring(REAL_SIZES, 300, 290)  # more than one piece, across the ring's end
    ring.horizon = 270
    saved = save(ring, tmp_path, "fits")
    records = ring.read(30, 300)[1]
    with fits.open(saved.path, memmap=False, checksum=True) as units:
        units.verify("exception")
        assert [unit.name for unit in units[:5]] == [
            "PRIMARY",
            "TELEMETRY",
            "I0_DM_REF",
            "N0_DM_REF",
            "DARK_REF",
        ]
        assert units[0].data is None
        table = units["TELEMETRY"]
        assert table.header["TFIELDS"] == len(LEGACY_TABLE)
        assert table.header["NAXIS2"] == len(table.data) == saved.frames == 270
        for number, (name, form, unit, field) in enumerate(LEGACY_TABLE, 1):
            assert table.header[f"TTYPE{number}"] == name
            assert table.header[f"TFORM{number}"] == form, name
            assert table.header.get(f"TUNIT{number}") == unit, name
            expected = np.arange(270) if field is None else records[field]
            found = table.data[name]
            if name == "TIMESTAMPS":
                expected = expected / 1000.0  # microseconds
                assert found.dtype.newbyteorder("=") == np.float64
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_fits_carries_the_references_in_force_as_images(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    ring = make_ring()
    feed(ring, 5)
    expected = description(SIZES)
    with fits.open(save(ring, tmp_path, "fits").path) as units:
        for name, key in (("I0_DM_REF", "reference"), ("N0_DM_REF", "clear_pupil"), ("DARK_REF", "dark")):
            assert units[name].header["BITPIX"] == -64
            assert units[name].header["VLEN"] == expected[key].size
            np.testing.assert_array_equal(units[name].data, expected[key])
        np.testing.assert_array_equal(units["KI_HO"].data, expected["ki_ho"])


def test_fits_header_tells_beam_mask_camera_loop_and_time(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    ring = make_ring()
    feed(ring, 5)
    given = description(SIZES)
    before = np.datetime64("now")
    odd = {
        "odd": "Grüße\nzwei Zeilen",
        "not_a_number": np.nan,
        "runtime_sha256": "f" * 64,
        "runtime_file": "/etc/O'Brien/" + "x" * 50,
    }
    saved = save(ring, tmp_path, "fits", **odd)

    with fits.open(saved.path) as units:
        header = units[0].header
        found = {key: header[key] for key in ("BEAM", "MASK", "MODE", "FPS", "GAIN", "BOXCAR", "NFRAMES")}
        assert found == {
            "BEAM": 2,
            "MASK": "H3",
            "MODE": "bright",
            "FPS": 1730.0,
            "GAIN": 10.0,
            "BOXCAR": 5,
            "NFRAMES": 5,
        }
        assert header["CONFFILE"] == given["config_file"]
        assert header["RUNSHA"] == "f" * 64
        assert header["RUNFILE"] == "/etc/O'Brien/" + "x" * 50
        assert "odd = Gr\\xfc\\xdfe zwei Zeilen" in header["COMMENT"]
        assert header["KI_LO"] == 0.3
        assert header["KI_HO"] == pytest.approx(0.15)
        assert "mean of 5 modes" in header.comments["KI_HO"]
        assert before <= np.datetime64(header["DATE"]) <= np.datetime64("now") + np.timedelta64(1, "s")
        # The clock pair turns the table's time stamps into UTC.
        utc_us = units["TELEMETRY"].data["TIMESTAMPS"][0] + (header["UTC_NS"] - header["MONO_NS"]) / 1000
        difference = np.datetime64(header["DATE-BEG"]) - np.datetime64(int(utc_us), "us")
        assert abs(difference) <= np.timedelta64(2, "us")


def test_fits_has_the_newer_fields_behind_the_legacy_ones(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    ring = make_ring()
    feed(ring, 5)
    with fits.open(save(ring, tmp_path, "fits").path) as units:
        table = units["TELEMETRY_EXTRA"].data
        for name in ("frame", "latency_ns", "flags", "command", "flux", "strehl"):
            np.testing.assert_array_equal(table[name.upper()], [value(name, n) for n in range(5)])


def test_without_astropy_fits_names_the_extra_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fits_file, "is_available", lambda: False)
    ring = make_ring()
    feed(ring, 5)
    with pytest.raises(StateError, match=r"baldr-tango\[fits\]"):
        Saver(2, 0.0, LOG).save(ring, tmp_path, "fits", description(SIZES))
    assert list(tmp_path.iterdir()) == []


# JSON


def test_json_has_the_legacy_keys_and_a_header(tmp_path):
    ring = make_ring(40)
    feed(ring, 70)
    content = json.loads(save(ring, tmp_path, "json").path.read_text())
    assert set(content) >= LEGACY_KEYS
    records = range(31, 70)
    assert content["counter"] == 70
    assert content["timestamps"] == [value("time_ns", n) / 1000 for n in records]
    assert content["LO_servo_mode"] == [value("LO_servo_mode", n) for n in records]
    for name in ("img", "img_dm", "signal", "e_LO", "u_LO", "e_HO", "u_HO", "c_LO", "c_HO", "c_inj"):
        assert content[name] == [value(name, n).tolist() for n in records], name
    for name in ("rmse_est", "snr"):
        assert content[name] == [value(name, n) for n in records], name
    header = content["header"]
    assert (header["beam"], header["mask"], header["frames"]) == (2, "H3", 39)
    assert header["ki_ho"] == description(SIZES)["ki_ho"].tolist()


def test_json_writes_null_where_a_number_is_not_finite(tmp_path):
    ring = make_ring()
    feed(ring, 2)
    ring.fields["snr"][0] = np.nan
    ring.fields["e_LO"][1] = (np.inf, 1.0)
    path = save(ring, tmp_path, "json").path
    content = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))
    assert content["snr"][0] is None
    assert content["e_LO"][1] == [None, 1.0]


# HDF5


def test_hdf5_is_read_by_the_product_and_has_every_field_and_image(tmp_path):
    ring = make_ring(40)
    feed(ring, 70)
    saved = save(ring, tmp_path, "hdf5")
    with TelemetryFile(saved.path) as file:
        assert file.is_finished
        assert len(file) == 39
        assert_records(file.records(), range(31, 70))
        assert_records({"frame": file.images()["frame"], "img": file.images()["img"]}, range(31, 70))
        assert file.attributes["mask"] == "H3"
        assert file.attributes["beam"] == 2
        assert file.gaps.size == 0
        np.testing.assert_array_equal(file.reference["dark"], description(SIZES)["dark"])


# Names, and several writers


@pytest.mark.parametrize("format_name", FORMATS)
def test_names_carry_beam_and_utc_and_only_complete_files_are_left(tmp_path, format_name):
    if format_name == "fits":
        pytest.importorskip("astropy")
    ring = make_ring()
    feed(ring, 5)
    saved = save(ring, tmp_path / "new", format_name)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [saved.path.name]
    suffix = re.escape(FORMATS[format_name].suffix)
    assert re.fullmatch(rf"baldr_beam2_telemetry_\d{{8}}T\d{{6}}\.\d{{3}}Z{suffix}", saved.path.name)


@pytest.mark.parametrize("format_name", FORMATS)
def test_four_writers_in_one_millisecond_overwrite_nothing(tmp_path, monkeypatch, format_name):
    """Also those of the same beam, as two servers in one directory would be."""
    if format_name == "fits":
        pytest.importorskip("astropy")
    monkeypatch.setattr(saving.time, "time_ns", lambda: 1_763_633_445_123_456_789)
    together = threading.Barrier(4)

    def write(number: int) -> None:
        ring = make_ring()
        feed(ring, 5 + number)
        together.wait(10.0)
        done.append(save(ring, tmp_path, format_name))

    done: list[SavedTelemetry] = []
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len({saved.path for saved in done}) == 4
    assert sorted(saved.frames for saved in done) == [5, 6, 7, 8]
    assert {p.name for p in tmp_path.iterdir()} == {saved.path.name for saved in done}
    stamps = sorted(saved.path.name.split("_")[3][:20] for saved in done)
    assert stamps == [f"20251120T101045.{ms}Z" for ms in (123, 124, 125, 126)]
    sizes = {saved.frames: saved.path.stat().st_size for saved in done}
    if format_name == "json":
        assert all(sizes[a] < sizes[b] for a, b in pairwise(sorted(sizes)))


def test_a_file_that_is_there_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(saving.time, "time_ns", lambda: 1_763_633_445_123_456_789)
    taken = tmp_path / files.saved_name(2, 1_763_633_445_123_456_789, ".json")
    taken.write_text("mine")
    ring = make_ring()
    feed(ring, 5)
    assert save(ring, tmp_path, "json").path != taken
    assert taken.read_text() == "mine"


# Copying


def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have the JSON writer wait before it writes; return the events 'reached' and 'go on'."""
    reached, go_on = threading.Event(), threading.Event()
    original = FORMATS["json"].write

    def write(path: Path, ring: TelemetryRing, text: Any) -> None:
        reached.set()
        assert go_on.wait(30.0)
        original(path, ring, text)

    slow = {**FORMATS, "json": saving.SaveFormat(".json", write, 20)}
    monkeypatch.setattr(saving, "FORMATS", slow)
    return reached, go_on


def test_what_is_saved_is_what_was_there_at_the_request(tmp_path, monkeypatch):
    reached, go_on = held(monkeypatch)
    ring = make_ring(40)
    ring.horizon = 30
    feed(ring, 50)
    saver = Saver(2, 0.0, LOG)
    saved = saver.save(ring, tmp_path, "json", description(SIZES))
    assert reached.wait(10.0)
    feed(ring, 100)  # the loop goes on and overwrites everything
    go_on.set()
    assert saver.close(10.0)
    content = json.loads(saved.path.read_text())
    assert content["frame"] == [FIRST_FRAME + n for n in range(20, 50)]
    assert content["img"] == [value("img", n).tolist() for n in range(20, 50)]


def test_one_file_at_a_time(tmp_path, monkeypatch):
    reached, go_on = held(monkeypatch)
    ring = make_ring()
    feed(ring, 5)
    saver = Saver(2, 0.0, LOG)
    first = saver.save(ring, tmp_path, "json", description(SIZES))
    assert reached.wait(10.0)
    with pytest.raises(StateError, match=re.escape(str(first.path))):
        saver.save(ring, tmp_path, "json", description(SIZES))
    go_on.set()
    assert saver.close(10.0)
    assert saver.newest is first
    save(ring, tmp_path, "json", saver)


# What goes wrong


def test_an_empty_ring_gives_no_file(tmp_path):
    with pytest.raises(StateError, match="no frame"):
        Saver(2, 0.0, LOG).save(make_ring(), tmp_path, "json", description(SIZES))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_refused_before_it_is_full(tmp_path):
    ring = make_ring()
    feed(ring, 5)
    with pytest.raises(BackendError, match="min_free_mb"):
        Saver(2, 1e12, LOG).save(ring, tmp_path, "json", description(SIZES))
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_refused_with_the_estimate(tmp_path, monkeypatch):
    ring = make_ring()
    feed(ring, 5)
    monkeypatch.setattr("baldr_tango.telemetry.memory.allowed_bytes", lambda: 10)
    with pytest.raises(StateError, match=r"MB of memory needed.*set_telem_capacity"):
        Saver(2, 0.0, LOG).save(ring, tmp_path, "json", description(SIZES))


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    ring = make_ring()
    feed(ring, 5)
    with pytest.raises(BackendError, match="file"):
        Saver(2, 0.0, LOG).save(ring, tmp_path / "file" / "below", "json", description(SIZES))


def test_a_failed_write_leaves_nothing_and_says_why(tmp_path, monkeypatch, caplog):
    def write(path: Path, ring: TelemetryRing, text: Any) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "FORMATS", {"json": saving.SaveFormat(".json", write, 20)})
    ring = make_ring()
    feed(ring, 5)
    saver = Saver(2, 0.0, LOG)
    saved = saver.save(ring, tmp_path, "json", description(SIZES))
    assert saved.done.wait(10.0)
    assert saver.close(5.0)
    with pytest.raises(BackendError, match="No space left"):
        saved.check()
    assert "No space left" in caplog.text
    assert saver.newest is None
    assert list(tmp_path.iterdir()) == []


def test_saved_files_are_not_among_those_that_keep_files_deletes(tmp_path):
    ring = make_ring()
    feed(ring, 5)
    saved = save(ring, files.beam_directory(tmp_path, 2), "hdf5")
    assert files.list_files(tmp_path) == []
    files.remove_oldest(tmp_path, 2, 1)
    with h5py.File(saved.path) as file:
        assert file.attrs["frames"] == 5
