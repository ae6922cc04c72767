"""Telemetry commands on a running beam: capacity, format, path, saving, polling."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.commands import COMMANDS, telemetry
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.errors import BackendError, RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.telemetry import TelemetryFile, fits_file, legacy, saving
from baldr_tango.telemetry.fields import TELEMETRY_FIELDS
from baldr_tango.telemetry.ring import TelemetryRing
from legacy_zmq import protocol
from tests.beam_bench import BeamBench
from tests.harness import wait_for


@pytest.fixture
def bench(tmp_path):
    with BeamBench(tmp_path) as bench:
        yield bench


def answer(bench: BeamBench, message: str) -> Any:
    """Send a commander message, return the reply as JSON."""
    return json.loads(protocol.reply(message, lambda name, arguments: bench.ask(name, *arguments)))


def read(path: str) -> Any:
    return json.loads(Path(path).read_text())


# Capacity


@pytest.mark.parametrize("message", ["[50]", "50", "[50.0]", '{"frames": 50}'])
def test_capacity_in_frames(bench, message):
    reply = answer(bench, f"set_telem_capacity {message}")
    assert reply["status"] == "Telemetry capacity updated to 50"
    assert reply["capacity"] == 50
    assert bench.beam.read(["telemetry_capacity"]) == {"telemetry_capacity": 50}


@pytest.mark.parametrize(
    ("message", "seconds"), [('"0.05 s"', 0.05), ('["0.05s"]', 0.05), ('{"seconds": 0.1}', 0.1)]
)
def test_capacity_in_seconds_counts_frames_at_the_loop_s_rate(bench, message, seconds):
    reply = answer(bench, f"set_telem_capacity {message}")
    assert reply["capacity"] == round(seconds * bench.loop.parameters.frame_rate_hz)
    assert reply["seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize(
    "message",
    [
        '["a"]',
        "[-1]",
        "[0]",
        "[1]",
        "[2.5]",
        "[true]",
        "[null]",
        '["5 h"]',
        '["1.2.3 s"]',
        '[{"seconds": -1}]',
        '[{"seconds": "5"}]',
        '[{"minutes": 1}]',
        "[1000001]",
        "",
    ],
)
def test_a_senseless_capacity_is_refused_and_nothing_changes(bench, message):
    before = bench.ask("set_telem_capacity", 60)["capacity"]
    reply = answer(bench, f"set_telem_capacity {message}")
    assert reply["ok"] is False
    assert "capacity" in reply["error"]
    assert bench.beam.saving.capacity == before == bench.loop.arrays.ring.horizon


def test_a_capacity_beyond_the_memory_is_refused_with_the_estimate(bench, monkeypatch):
    monkeypatch.setattr("baldr_tango.telemetry.memory.allowed_bytes", lambda: 10_000_000)
    ring = bench.loop.arrays.ring
    with pytest.raises(RequestError, match=r"900000 frames: \d+ MB of memory needed, 10 MB allowed.* kB"):
        bench.ask("set_telem_capacity", 900_000)
    assert bench.loop.arrays.ring is ring
    assert bench.beam.saving.capacity == 256


def test_enlarging_keeps_records_state_and_frame_numbers(bench):
    """Loops closed: controllers, command and counters go on as if nothing had happened."""
    bench.ask("close_all")
    bench.step(300)
    before = bench.loop.counters
    integral, command = bench.loop.arrays.state.integral_ho.copy(), bench.channel.read()[0]
    assert np.any(integral)
    old = bench.loop.arrays.ring
    records = old.read(old.oldest, old.write_index)[1]
    assert bench.ask("set_telem_capacity", 2000)["capacity"] == 2000
    ring = bench.loop.arrays.ring
    assert ring is not old
    assert ring.capacity > 2000
    first, found = ring.read(0, ring.write_index)
    assert first == old.oldest
    for name, array in records.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    wait_for(lambda: bench.loop.has_streams, what="a running loop")
    ignored = {d.TIMEOUTS, d.LAST_WAKE_NS}
    for index in set(range(d.N_COUNTERS)) - ignored:
        assert bench.counter(index) == before[index], index
    np.testing.assert_array_equal(bench.loop.arrays.state.integral_ho, integral)
    np.testing.assert_array_equal(bench.channel.read()[0], command)
    bench.step(1500)
    assert bench.lost() == 0
    assert bench.counter(d.STALE) == before[d.STALE]
    assert bench.counter(d.LO_CLOSED) == bench.counter(d.HO_CLOSED) == 1
    first, found = ring.read(0, ring.write_index)
    assert np.all(np.diff(found["frame"]) == 1)
    assert len(found["frame"]) == 1500 + len(records["frame"])


def test_a_frame_that_comes_while_the_ring_is_exchanged_is_not_lost(bench, monkeypatch):
    """Posted at the worst moment: when the loop has come out and the new ring is not yet in place."""
    bench.step(20)
    follow, posted = TelemetryRing.follow, []

    def follow_after_a_post(ring, other, stop=None):
        if stop is None and bench.loop.arrays.ring is other:  # in the real-time thread, the loop being out
            bench.camera.write(bench.frame())
            posted.append(threading.current_thread().name)
        follow(ring, other, stop)

    monkeypatch.setattr(TelemetryRing, "follow", follow_after_a_post)
    bench.ask("set_telem_capacity", 3000)
    assert posted == ["rtc-1"]
    ring = bench.loop.arrays.ring
    wait_for(lambda: ring.write_index == 21, 10.0, "the frame posted meanwhile")
    bench.step(5)
    assert bench.lost() == 0
    assert ring.write_index == 26
    assert np.all(np.diff(ring.fields["frame"][:26]) == 1)


def test_the_boxcar_goes_on_over_an_exchange(tmp_path):
    """Its memory is the ring: the frame after an exchange is weighted with those before."""
    errors = []
    for enlarge in (False, True):
        directory = tmp_path / str(enlarge)
        directory.mkdir()
        with BeamBench(directory, loop=LoopSettings(ring_frames=256, boxcar=8)) as bench:
            bench.step(50)
            if enlarge:
                bench.ask("set_telem_capacity", 1000)
            bench.step(1)
            errors.append(bench.loop.arrays.ring.newest("e_LO"))
    np.testing.assert_array_equal(*errors)


def test_shrinking_keeps_the_newest(bench):
    bench.step(100)
    newest = int(bench.loop.arrays.ring.newest("frame"))
    bench.ask("set_telem_capacity", 10)
    bench.ask("set_telem_save_format", "json")
    assert read(bench.ask("save_telemetry")["path"])["frame"] == list(range(newest - 9, newest + 1))
    bench.ask("set_telem_capacity", 40)  # the older ones are still there
    assert read(bench.ask("save_telemetry")["path"])["frame"] == list(range(newest - 39, newest + 1))


def test_a_large_ring_gives_its_memory_back(bench):
    bench.ask("set_telem_capacity", 5000)
    bench.step(400)
    bench.ask("set_telem_capacity", 300)
    ring = bench.loop.arrays.ring
    assert ring.capacity < 1000
    found = ring.read(0, ring.write_index)[1]
    assert found["frame"][-1] - found["frame"][0] == len(found["frame"]) - 1 >= 300 - 1
    bench.step(10)
    assert bench.lost() == 0


def test_the_capacity_outlives_a_new_configuration(bench):
    bench.ask("set_telem_capacity", 700)
    bench.ask("readBDRConfig", str(bench.directory / "calibration.toml"))
    bench.wait_running()
    assert bench.loop.arrays.ring.horizon == 700
    bench.step(710)
    assert bench.loop.arrays.ring.available == 700


def test_the_capacity_of_a_stopped_loop(bench):
    bench.step(30)
    bench.ask("stop_baldr")
    bench.ask("set_telem_capacity", 4000)
    bench.ask("start_baldr")
    bench.wait_running()
    bench.step(10)
    assert bench.loop.arrays.ring.available == 40


def test_a_paused_loop_takes_a_new_ring(bench):
    bench.ask("pauseRTC")
    bench.ask("set_telem_capacity", 4000)
    assert bench.loop.arrays.ring.capacity > 4000
    bench.ask("resumeRTC")
    bench.step(3)


def test_a_recording_goes_on_over_an_exchange(bench):
    bench.ask("telem_on")
    bench.step(150)
    bench.ask("set_telem_capacity", 3000)
    bench.step(150)
    bench.ask("telem_off")
    wait_for(lambda: bench.beam.telemetry_status().frames_written == 300, 20.0, "300 frames on disk")
    assert bench.beam.telemetry_status().overruns == 0
    numbers = []
    for path in sorted((bench.directory / "telemetry" / "beam1").glob("*.h5")):
        with TelemetryFile(path) as file:
            numbers += file.records(fields=("frame",))["frame"].tolist()
    assert numbers == list(range(numbers[0], numbers[0] + 300))


# Saving


@pytest.mark.parametrize("format_name", ["fits", "json", "hdf5"])
def test_saving_thousands_of_frames_disturbs_nothing(tmp_path, format_name):
    """While 4096 frames are copied and written, the loop takes frame after frame and loses none."""
    if format_name == "fits":
        pytest.importorskip("astropy")
    with BeamBench(tmp_path, loop=LoopSettings(ring_frames=4096)) as bench:
        bench.step(4200)
        newest = int(bench.loop.arrays.ring.newest("frame"))
        bench.ask("set_telem_save_format", format_name)
        replies: list[Any] = []
        thread = threading.Thread(target=lambda: replies.append(bench.ask("save_telemetry")))
        thread.start()
        steps = 0
        while thread.is_alive() or steps < 200:
            bench.step()
            steps += 1
        thread.join()
        path = replies[0]["path"]
        wait_for(lambda: Path(path).exists(), what="a complete file")
        assert replies[0]["ok"] is True
        assert replies[0]["frames"] == 4096
        assert replies[0]["format"] == format_name
        assert bench.lost() == 0
        assert bench.counter(d.FRAMES) == 4200 + steps
        if format_name == "fits":
            fits = pytest.importorskip("astropy.io.fits")
            with fits.open(path) as units:
                frames = units["TELEMETRY_EXTRA"].data["FRAME"].tolist()
        elif format_name == "json":
            frames = read(path)["frame"]
        else:
            with TelemetryFile(path) as file:
                frames = file.records()["frame"].tolist()
        assert frames == list(range(frames[0], frames[0] + 4096))
        assert newest <= frames[-1] <= newest + steps


def test_the_loop_takes_frames_while_a_file_is_written(bench, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()

    def write(path, ring, description):
        reached.set()
        assert go_on.wait(30.0)
        path.write_text(json.dumps({"frames": description["frames"]}))

    monkeypatch.setattr(saving, "FORMATS", {"json": saving.SaveFormat(".json", write, 20)})
    monkeypatch.setattr(telemetry, "REPLY_TIME_S", 0.01)
    bench.step(10)
    bench.ask("set_telem_save_format", "json")
    reply = bench.ask("save_telemetry")
    assert reply["pending"] is True
    assert reached.is_set() or reached.wait(10.0)
    bench.step(500)
    assert not Path(reply["path"]).exists()
    with pytest.raises(StateError, match="still being saved"):
        bench.ask("save_telemetry")
    go_on.set()
    wait_for(lambda: Path(reply["path"]).exists(), 10.0, "the file under the name of the reply")
    assert read(reply["path"]) == {"frames": 10}
    wait_for(lambda: bench.beam.read(["saved_telemetry"])["saved_telemetry"] == reply["path"], 10.0)


def test_the_reply_names_a_complete_file(bench):
    bench.step(30)
    bench.ask("set_telem_save_format", "hdf5")
    reply = answer(bench, "save_telemetry")
    assert set(reply) == {"ok", "path", "frames", "format"}
    assert reply["frames"] == 30
    with TelemetryFile(reply["path"]) as file:
        assert len(file) == 30
        assert file.attributes["mask"] == "H3"
        assert file.attributes["boxcar"] == 1


def test_what_is_saved_is_what_the_loop_computed(bench):
    """One frame against the equations: dark, flux, signal, in the columns of the legacy table."""
    bench.step(3)
    bench.ask("set_telem_save_format", "json")
    content = read(bench.ask("save_telemetry")["path"])
    p = bench.loop.parameters
    image = np.array(content["img"][-1]) - p.dark
    flux = image @ p.flux_weights
    expected = p.pixels_to_actuators @ image / flux
    np.testing.assert_allclose(content["img_dm"][-1], expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(content["header"]["dark"], p.dark, rtol=1e-6)
    np.testing.assert_allclose(content["header"]["reference"], p.reference, rtol=1e-6)


def test_a_tripped_loop_still_saves_its_telemetry(bench):
    bench.step(20)
    bench.beam.save_telemetry()
    directory = bench.directory / "telemetry" / "beam1"
    wait_for(lambda: list(directory.glob("*.h5")), 20.0, "a file of the trip")
    wait_for(lambda: bench.beam.telemetry_status().frames_written == 20, 20.0, "20 frames on disk")


def test_nothing_to_save_is_said(bench):
    reply = answer(bench, "save_telemetry")
    assert reply["ok"] is False
    assert "no frame" in reply["error"]


def test_a_failure_is_published(bench, monkeypatch):
    def write(path, ring, description):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "FORMATS", {"json": saving.SaveFormat(".json", write, 20)})
    bench.step(3)
    bench.ask("set_telem_save_format", "json")
    with pytest.raises(BackendError, match="No space left"):
        bench.ask("save_telemetry")
    assert "No space left" in bench.beam.read(["save_error"])["save_error"]


# Format and path


@pytest.mark.parametrize("text", ["json", "HDF5", " Json "])
def test_the_format_is_chosen_in_any_case(bench, text):
    reply = answer(bench, f'set_telem_save_format ["{text}"]')
    assert reply["status"] == "Telemetry format updated successfully"
    assert reply["format"] == text.strip().lower() == bench.beam.saving.format


def test_an_unknown_format_is_refused(bench):
    before = bench.beam.saving.format
    reply = answer(bench, 'set_telem_save_format ["xml"]')
    assert reply == {
        "ok": False,
        "error": 'Invalid format. Please use one of "fits", "json", "hdf5".',
    }
    assert bench.beam.saving.format == before


def test_fits_without_astropy_names_the_extra(bench, monkeypatch):
    bench.ask("set_telem_save_format", "hdf5")
    monkeypatch.setattr(fits_file, "is_available", lambda: False)
    with pytest.raises(StateError, match=r"baldr-tango\[fits\]"):
        bench.ask("set_telem_save_format", "fits")
    assert bench.beam.saving.format == "hdf5"


def test_the_path_is_created_and_used(bench):
    wanted = bench.directory / "night" / "one"
    reply = answer(bench, f'set_telem_save_path ["{wanted}"]')
    assert reply["status"] == "Telemetry save path updated"
    assert reply["new_path"] == f"{wanted}/"
    bench.step(2)
    bench.ask("set_telem_save_format", "json")
    saved = Path(bench.ask("save_telemetry")["path"])
    assert saved.parent == wanted
    assert saved.name.startswith("baldr_beam1_telemetry_")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", RequestError, "Provided path is empty."),
        ("  ", RequestError, "Provided path is empty."),
        ("relative/path", RequestError, "absolute"),
        ("~nobody-of-that-name/x", RequestError, "nobody-of-that-name"),
        ("/proc/no/such/place", BackendError, "Failed to create directory: /proc/no/such/place"),
        ("/dev/null/x", BackendError, "Failed to create directory"),
    ],
)
def test_a_bad_path_is_refused_and_the_old_one_stays(bench, text, kind, message):
    before = bench.beam.saving.directory
    with pytest.raises(kind, match=message):
        bench.ask("set_telem_save_path", text)
    assert bench.beam.saving.directory == before


# Polling


def test_every_field_is_polled_with_its_newest_value(bench):
    bench.ask("close_all")
    bench.step(5)
    ring = bench.loop.arrays.ring
    for field in TELEMETRY_FIELDS:
        command = "poll_telem_vector" if field.size_key else "poll_telem_scalar"
        reply = bench.ask(command, field.name)
        expected = ring.fields[field.name][4]
        assert reply["ok"] is True
        assert reply["name"] == field.name
        np.testing.assert_array_equal(reply["data"], expected, err_msg=field.name)
        assert reply.get("size") == (expected.size if field.size_key else None)
        wrong = "poll_telem_scalar" if field.size_key else "poll_telem_vector"
        assert answer(bench, f'{wrong} "{field.name}"')["error"] == "unknown field"


def test_poll_replies_have_the_legacy_shape(bench):
    bench.step(2)
    assert set(answer(bench, 'poll_telem_vector "e_LO"')) == {"data", "name", "ok", "size"}
    assert set(answer(bench, 'poll_telem_vector ["e_LO"]')) == {"data", "name", "ok", "size"}
    assert set(answer(bench, 'poll_telem_scalar "snr"')) == {"data", "name", "ok"}


def test_aliases_and_any_case(bench):
    bench.step(4)
    ring = bench.loop.arrays.ring
    assert bench.ask("poll_telem_vector", "E_lo") == {
        **bench.ask("poll_telem_vector", "e_LO"),
        "name": "E_lo",
    }
    for alias in ("timestamp", "TIMESTAMPS"):
        assert bench.ask("poll_telem_scalar", alias)["data"] == ring.newest("time_ns") / 1000
    assert bench.ask("poll_telem_scalar", "counter")["data"] == int(ring.newest("frame"))
    listed = legacy.names(vectors=True) + legacy.names(vectors=False)
    assert len(set(listed)) == len(listed)
    for vector in (True, False):
        for name in legacy.names(vectors=vector):
            assert bench.ask("poll_telem_vector" if vector else "poll_telem_scalar", name)["ok"], name


@pytest.mark.parametrize(
    ("message", "field"), [('poll_telem_scalar "img"', "img"), ('poll_telem_vector "nope"', "nope")]
)
def test_an_unknown_field_is_named_with_those_that_exist(bench, message, field):
    reply = answer(bench, message)
    assert {key: reply[key] for key in ("error", "field", "ok")} == {
        "error": "unknown field",
        "field": field,
        "ok": False,
    }
    assert ("snr" if "scalar" in message else "e_LO") in reply["known"]


@pytest.mark.parametrize("frames", [0, 1])
def test_too_few_samples_are_said_with_their_number(bench, frames):
    bench.step(frames)
    expected = {"error": "insufficient data", "ok": False, "size": frames}
    assert answer(bench, 'poll_telem_scalar "snr"') == expected
    assert answer(bench, 'poll_telem_vector "e_LO"') == expected


def test_polls_and_saves_do_not_queue_behind_other_commands():
    for name in ("poll_telem_scalar", "poll_telem_vector", "save_telemetry"):
        assert COMMANDS.find(name).waits
    for name in ("set_telem_capacity", "set_telem_save_format", "set_telem_save_path"):
        assert not COMMANDS.find(name).waits
