"""A recording goes through the compiled loop again: bit for bit the same, or as other gains would have it."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from baldr_tango.configuration.kalman import default_model
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.errors import ConfigError, RequestError
from baldr_tango.kernels import injection as waves
from baldr_tango.kernels import loop_data as d
from baldr_tango.replay import Changes, changes_of_file, changes_of_texts, replay
from baldr_tango.replay.changes import CHANGEABLE
from baldr_tango.rtc.arrays import build_state, state_members
from baldr_tango.telemetry.fields import FrameFlag
from baldr_tango.telemetry.reader import TelemetryFile
from tests.harness import wait_for
from tests.loop_scenario import WIDE
from tests.problem import NumpyLoop, gains, random_frame, random_problem
from tests.recorded_loop import RecordedLoop
from tests.unit.test_loop_faults import unwritable

ACTUATORS = 16


def column(path, field):
    with TelemetryFile(path) as file:
        return file.records(fields=(field,))[field]


def assert_identical(result):
    assert result.first is None, result.first
    assert result.is_identical
    assert (result.replayed, result.passed_over) == (result.rows, [])
    assert result.different == 0
    assert result.notes == []


def problem(kind="PID", **changes):
    """A loop with both controllers of a kind, different gains for every mode."""
    rng = np.random.default_rng(2)
    low = gains(2, kp=rng.uniform(0, 0.3, 2), ki=rng.uniform(0, 0.3, 2), kd=0.1)
    high = gains(ACTUATORS, kp=rng.uniform(0, 0.3, ACTUATORS), ki=rng.uniform(0, 0.3, ACTUATORS), kd=0.05)
    values = {
        "limits": WIDE,
        "controller_type_lo": kind,
        "controller_type_ho": kind,
        "control_lo": low,
        "control_ho": high,
        "kalman_lo": default_model(low.ki, low.leak),
        "kalman_ho": default_model(high.ki, high.leak),
    }
    return random_problem(3, **(values | changes))


@pytest.fixture
def bench(tmp_path):
    with RecordedLoop(problem(), tmp_path) as running:
        yield running


@pytest.mark.parametrize("kind", ["PID", "LEAKY", "KALMAN"])
def test_loops_closed_before_the_recording_give_the_same_bits(kind, tmp_path):
    with RecordedLoop(problem(kind), tmp_path) as bench:
        bench.set_loops(True, True)
        bench.frames(7)
        bench.record()
        bench.frames(30)
        path = bench.finish()
    assert np.abs(column(path, "u_HO")).max() > 0.001, "the loops must have worked"
    result = replay(path)
    assert_identical(result)
    assert result.rows == 30
    assert {"command", "e_LO", "e_HO", "u_LO", "u_HO", "flags", "snr", "strehl", "img"} - set(
        result.compared
    ) == {"img"}


def test_everything_that_an_operator_does_while_it_is_recorded_is_replayed(bench):
    """Gains, set points, loops, boxcar, offsets, limits, another layout of a matrix, skipped, lost frames."""
    rng = np.random.default_rng(4)
    bench.set_loops(True, False)
    bench.frames(12)
    bench.record()
    bench.frames(3)
    bench.change(kp_lo=np.array([0.4, 0.1]), ki_lo=np.array([0.2, 0.5]))
    bench.frames(3)
    bench.set_loops(True, True)
    bench.change(kp_ho=rng.uniform(0, 0.4, ACTUATORS))  # two versions between two frames
    bench.frames(3)
    bench.change(set_point_lo=np.array([0.01, -0.02]), set_point_ho=rng.normal(0, 0.01, ACTUATORS))
    bench.frames(3)
    bench.frames(1, flux=10.0)
    bench.change(switches={d.BOXCAR: 5})
    bench.frames(8)
    for _ in range(3):
        bench.camera.write(random_frame(bench.parameters, rng), post=False)
    bench.frames(4)
    bench.change(reconstructor_ho=rng.normal(0, 0.02, (ACTUATORS, ACTUATORS)))
    bench.frames(4)
    bench.set_loops(False, False)
    bench.change(
        offset_lo=rng.normal(0, 0.01, ACTUATORS), switches={d.OFFSET_EPOCH: 1}, limits={d.HO_LIMIT: 0.004}
    )
    bench.frames(3)
    bench.switch(PAUSE=1)
    bench.switch(PAUSE=0)
    bench.set_loops(True, True)
    bench.change(reference=bench.parameters.reference * 1.01, dark=bench.parameters.dark + 3.0)
    bench.frames(10)
    bench.change(switches={d.TYPE_HO: 1}, leak_ho=np.full(ACTUATORS, 0.9))
    bench.frames(10)
    path = bench.finish()
    flags = column(path, "flags")
    assert np.count_nonzero(flags & FrameFlag.SKIPPED) == 1
    assert np.count_nonzero(flags & FrameFlag.MISSED_BEFORE) == 1
    assert np.any(flags & FrameFlag.LIMITED), "the limit of the modes must have acted"
    assert np.ptp(column(path, "version")) >= 12
    assert_identical(replay(path))


@pytest.mark.parametrize("waveform", [waves.SINE, waves.PRBS, waves.CHIRP])
@pytest.mark.parametrize("into_set_points", [0, 1])
def test_injected_signals_are_replayed_from_the_middle_of_a_waveform(bench, waveform, into_set_points):
    rng = np.random.default_rng(6)
    values = np.zeros(waves.N_VALUES)
    values[[waves.AMPLITUDE, waves.FREQUENCY_HZ, waves.STOP_S]] = 0.02, 60.0, 100.0
    values[[waves.CHIRP_F0_HZ, waves.CHIRP_F1_HZ, waves.CHIRP_S]] = 10.0, 200.0, 1.0
    bench.set_loops(True, True)
    bench.change(
        switches={
            d.INJECT: 1,
            d.INJECT_WAVEFORM: waveform,
            d.INJECT_BRANCH: d.INJECT_ALL,
            d.INJECT_SET_POINT: into_set_points,
            d.INJECT_EPOCH: 1,
            d.INJECT_HOLD: 1,
            d.INJECT_LATENCY: 2,
        },
        injection=values,
        inject_map=rng.normal(0, 1, ACTUATORS),
        inject_lo=rng.normal(0, 1, 2),
        inject_ho=rng.normal(0, 1, ACTUATORS),
        inject_shape_lo=rng.normal(0, 1, ACTUATORS),
    )
    bench.frames(9)
    bench.record()
    bench.frames(10)
    bench.camera.write(random_frame(bench.parameters, rng), post=False)
    bench.frames(10)
    bench.change(switches={d.INJECT: 0, d.INJECT_EPOCH: 2})
    bench.frames(3)
    path = bench.finish()
    injected = column(path, "c_inj")
    assert np.abs(injected[:20]).max() > 1e-3
    assert not injected[-1].any()
    assert_identical(replay(path))


def test_a_running_mean_looks_back_to_frames_before_the_recording(tmp_path):
    with RecordedLoop(problem(boxcar=20), tmp_path) as bench:
        bench.set_loops(True, True)
        bench.frames(15)
        bench.frames(1, flux=10.0)
        bench.frames(25)
        bench.record()
        bench.frames(10)
        path = bench.finish()
    assert_identical(replay(path))


def test_bursts_of_reads_are_replayed_from_their_middle(bench):
    rng = np.random.default_rng(8)
    dark = bench.parameters.dark

    def reads(count):
        for k in range(count):
            light = rng.uniform(0.5, 1.5, dark.size) * (k + 1) * 900.0
            bench.step(np.round(dark + light).astype(np.int32).reshape(bench.parameters.frame_shape))

    bench.set_loops(True, True)
    bench.change(switches={d.BURST: 6})
    reads(6)
    reads(3)
    bench.record()
    reads(6)
    reads(4)
    path = bench.finish()
    assert 0 < np.count_nonzero(column(path, "flags") & FrameFlag.SKIPPED) < 4
    assert_identical(replay(path))


def test_a_recording_that_begins_before_the_loop_runs_is_exact_from_its_first_frame(tmp_path):
    bench = RecordedLoop(problem(), tmp_path)
    bench.loop.slots.change(kp_lo=np.array([0.2, 0.3]))
    bench.writer.start()
    bench.record()
    with bench:
        bench.set_loops(True, True)
        bench.frames(12)
        path = bench.finish()
    result = replay(path)
    assert_identical(result)
    assert result.rows == 12


def test_recordings_that_cannot_be_replayed_ask_nothing_of_the_loop(tmp_path):
    with RecordedLoop(problem(), tmp_path, {"image_every": 2}) as bench:
        bench.record()
        bench.frames(4)
        path = bench.finish()
        assert bench.loop.arrays.control[d.CHECKPOINT] == 0
    with TelemetryFile(path) as file:
        assert not file.has_journal
        assert file.attributes["format_version"] == 1


def test_files_on_both_sides_of_another_capacity_are_replayed(bench, tmp_path):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(8)
    old = bench.loop.arrays.ring
    ring = bench.loop.resize_ring(400, 10.0)
    assert bench.loop.journal(old) is None, "the loop does not fill it any more"
    bench.writer.replace_ring(ring, continued=True)
    bench.flush()
    bench.frames(8)
    bench.flush()
    bench.finish()
    results = [replay(path) for path in sorted(tmp_path.glob("beam1/*.h5"))]
    assert [result.rows for result in results] == [8, 8]
    for result in results:
        assert_identical(result)


def test_what_outlives_a_frame_is_in_the_memory_that_a_recording_holds():
    """A new member of the loop's state has to be in `memory_layout`, unless no later frame looks at it."""
    of_one_frame = {"image", "scratch", "averaged", "scratch_lo", "scratch_ho", "stamps"}
    statistics = {"latency_bins", "jitter_bins", "stage_bins", "stage_max"}
    state = build_state(64, ACTUATORS, 2, ACTUATORS, ACTUATORS)
    members = state_members(state, state.memory)
    assert set(d.State._fields) == {*members, *of_one_frame, *statistics, "memory", "checkpoint"}
    for name, view in members.items():
        assert np.shares_memory(view, getattr(state, name))
        assert view.shape == getattr(state, name).shape


def test_a_trip_and_its_acknowledgement_are_replayed(bench):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(5)
    bench.change(limits={d.COMMAND_LIMIT: 1e-5})
    bench.frames(3)
    bench.change(switches={d.CLOSE_LO: 0, d.CLOSE_HO: 0, d.RESET: 1}, limits={d.COMMAND_LIMIT: 1.0})
    bench.set_loops(True, True)
    bench.frames(5)
    path = bench.finish()
    flags = column(path, "flags")
    assert np.count_nonzero(flags & FrameFlag.TRIPPED) == 1
    assert np.count_nonzero(flags & FrameFlag.NOT_APPLIED) == 2
    assert_identical(replay(path))


def test_faults_of_frames_and_mirror_are_replayed(tmp_path):
    """Frozen, saturated and negative frames, commands that fail, until the loops open for it."""
    limits = replace(WIDE, wrong_pixels=2, frozen_frames=2, write_failures=4, saturation_adu=30000.0)
    with RecordedLoop(problem(limits=limits), tmp_path) as bench:
        bench.set_loops(True, True)
        (last,) = bench.frames(1)
        bench.record()
        for _ in range(4):
            bench.step(last)
        bench.frames(3)
        for value in (40000, -4000):
            wrong = random_frame(bench.parameters, bench.rng)
            wrong.flat[:5] = value
            bench.step(wrong)
        bench.frames(4)
        with unwritable(bench):
            bench.frames(2)
        bench.frames(4)
        with unwritable(bench):
            bench.frames(6)
        bench.frames(3)
        bench.change(switches={d.CLOSE_LO: 0, d.CLOSE_HO: 0, d.RESET: 1})
        bench.set_loops(True, True)
        bench.frames(4)
        path = bench.finish()
    flags = column(path, "flags")
    counts = {flag.name: int(np.count_nonzero(flags & flag)) for flag in FrameFlag}
    assert (counts["FROZEN"], counts["SATURATED"], counts["NEGATIVE"], counts["TRIPPED"]) == (4, 1, 1, 1)
    assert counts["WRITE_FAILED"] >= 6
    assert_identical(replay(path))


def test_every_limit_can_be_changed():
    assert {f"limits.{field.name}" for field in fields(LimitSettings)} <= set(CHANGEABLE)


def test_a_loop_that_was_stopped_and_started_begins_anew_in_the_replay(bench):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(6)
    assert bench.loop.stop(10.0)
    bench.loop.slots.change(kp_lo=np.array([0.9, 0.9]), switches={d.CLOSE_HO: 0})
    bench.loop.start()
    bench.wait_running()
    bench.change(ki_lo=np.array([0.01, 0.02]))
    bench.frames(6)
    path = bench.finish()
    assert_identical(replay(path))


def test_streams_that_were_created_again_are_no_gap(bench):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(6)
    reopened = bench.loop.reopens + 1
    bench.create_streams()
    bench.loop.check_streams()
    wait_for(lambda: bench.loop.reopens == reopened, 20.0, "streams opened again")
    bench.wait_running()
    bench.frames(6)
    path = bench.finish()
    assert_identical(replay(path))


def test_the_replay_goes_on_behind_a_gap_from_the_next_known_memory(tmp_path):
    with RecordedLoop(problem(boxcar=4), tmp_path) as bench:
        capacity = bench.loop.arrays.ring.capacity
        bench.set_loops(True, True)
        bench.record()
        bench.frames(10)
        bench.flush()
        bench.frames(capacity + 30)  # nobody writes meanwhile: the oldest are overwritten
        bench.flush()
        bench.frames(10)
        path = bench.finish()
    with TelemetryFile(path) as file:
        (gap,) = file.gaps
    result = replay(path)
    assert result.first is None
    # Behind the gap the ring was written out first; the memory was copied after that.
    assert result.passed_over == [(10, result.rows - 11)]
    assert (int(gap["row"]), result.replayed) == (10, 20)


def test_a_bit_flipped_in_a_raw_frame_is_found_at_that_frame(bench):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(25)
    path = bench.finish()
    numbers = column(path, "frame")
    with h5py.File(path, "r+") as file:
        file["images/img"][13, 20] ^= 1 << 6
    result = replay(path)
    assert (result.first.row, result.first.frame, result.first.field) == (13, numbers[13], "img_dm")
    assert not result.is_identical
    assert 1 <= result.different <= 12
    assert result.replayed == 25


def test_a_bit_flipped_in_a_recorded_command_is_found_there_and_nowhere_else(bench):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(25)
    path = bench.finish()
    with h5py.File(path, "r+") as file:
        file["command"][7, 3] = np.nextafter(file["command"][7, 3], np.float32(1))
    result = replay(path)
    assert (result.first.row, result.first.field, result.different) == (7, "command", 1)


def test_other_gains_give_what_the_equations_give(bench):
    """Loops closed from zero, other gains: the numpy formulation on the recorded frames."""
    bench.record()
    bench.set_loops(True, True)
    frames = bench.frames(30)
    path = bench.finish()
    other = replace(
        bench.parameters,
        control_lo=replace(bench.parameters.control_lo, kp=np.array([0.5, 0.25])),
        control_ho=replace(bench.parameters.control_ho, ki=np.full(ACTUATORS, 0.6)),
    )
    reference = NumpyLoop(other)
    reference.set_loops(True, True)
    expected = np.array([reference.step(frame)["command"] for frame in frames])
    changes = Changes({"control_lo.kp": (0.5, 0.25), "control_ho.ki": 0.6})
    target = path.with_name("replayed.h5")
    result = replay(path, changes, output=target)
    assert not result.is_identical
    assert result.first.field == "u_LO"
    assert len(result.notes) == 1
    np.testing.assert_allclose(column(target, "command"), expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(column(target, "frame"), column(path, "frame"))
    np.testing.assert_array_equal(column(target, "time_ns"), column(path, "time_ns"))
    figures = result.figures()
    for side, data in enumerate((column(path, "command"), expected)):
        assert figures["command rms"][side] == pytest.approx(np.sqrt(np.mean(np.square(data))), rel=1e-4)
        assert figures["command largest"][side] == pytest.approx(np.abs(data).max(), rel=1e-4)
    assert figures["e_HO rms"][0] == figures["e_HO rms"][1], "the frames do not answer"


def test_changes_that_are_what_was_in_force_change_nothing(bench):
    bench.record()
    bench.set_loops(True, True)
    bench.frames(12)
    path = bench.finish()
    p = bench.parameters
    same = Changes(
        {
            "control_ho.ki": tuple(p.control_ho.ki),
            "limits.command": 1.0,
            "loop.boxcar": 1,
            "control_lo.type": "PID",
        }
    )
    result = replay(path, same)
    assert result.is_identical
    assert result.replayed == 12


def test_a_changed_gain_stays_through_recorded_changes_of_it(bench):
    bench.record()
    bench.set_loops(True, True)
    bench.frames(10)
    bench.change(ki_ho=np.full(ACTUATORS, 0.9))
    bench.frames(10)
    path = bench.finish()
    before = tuple(bench.parameters.control_ho.ki)
    result = replay(path, Changes({"control_ho.ki": before}))
    assert result.first.row == 10


def test_a_smaller_limit_is_counted_on_the_replayed_side_only(bench):
    bench.record()
    bench.set_loops(True, True)
    bench.frames(12)
    path = bench.finish()
    figures = replay(path, Changes({"limits.ho_mode": 1e-4, "limits.ho_violations": 1000})).figures()
    assert figures["frames LIMITED"][0] == 0
    assert figures["frames LIMITED"][1] > 5
    tripped = replay(path, Changes({"limits.command": 1e-6})).figures()
    assert tripped["frames TRIPPED"] == (0, 1)


class TestRefusals:
    """Files that cannot be replayed are refused with the reason."""

    def test_a_file_with_thinned_images(self, tmp_path):
        with RecordedLoop(problem(), tmp_path, {"image_every": 10}) as bench:
            bench.record()
            bench.frames(12)
            path = bench.finish()
        with pytest.raises(RequestError, match=r"one raw image of 10 frames.*image_every = 1"):
            replay(path)

    def test_a_file_without_images(self, tmp_path):
        with RecordedLoop(problem(), tmp_path, {"fields": ("command", "flags", "version")}) as bench:
            bench.record()
            bench.frames(3)
            path = bench.finish()
        with pytest.raises(RequestError, match="no raw images"):
            replay(path)

    def test_a_file_that_lacks_a_field(self, tmp_path):
        with RecordedLoop(problem(), tmp_path, {"fields": ("img", "flags", "version")}) as bench:
            bench.record()
            bench.frames(3)
            path = bench.finish()
        with pytest.raises(RequestError, match="fields lacked command"):
            replay(path)

    def test_a_file_that_lost_its_journal(self, bench):
        bench.record()
        bench.frames(3)
        path = bench.finish()
        with h5py.File(path, "r+") as file:
            del file["replay"]
        with pytest.raises(RequestError, match="not the parameters"):
            replay(path)

    def test_a_file_with_another_image(self, bench):
        bench.record()
        bench.frames(5)
        path = bench.finish()
        with h5py.File(path, "r+") as file:
            file["images/frame"][3] += 1
        with pytest.raises(RequestError, match="not those of their frames"):
            replay(path)

    def test_an_output_that_exists(self, bench):
        bench.record()
        bench.frames(5)
        path = bench.finish()
        with pytest.raises(RequestError, match="exists"):
            replay(path, output=path)

    def test_gains_of_another_number_of_modes(self, bench):
        bench.record()
        bench.frames(5)
        path = bench.finish()
        with pytest.raises(ConfigError, match=r"control_lo.ki: found 3 items, expected one number, or 2"):
            replay(path, Changes({"control_lo.ki": (0.1, 0.2, 0.3)}))


def test_a_recording_is_replayed_while_it_is_being_written(bench, tmp_path):
    bench.set_loops(True, True)
    bench.record()
    bench.frames(8)
    bench.flush()
    running = tmp_path / "copy.h5"
    shutil.copy(bench.writer.status().file, running)  # as after kill -9: never closed
    bench.frames(4)
    bench.finish()
    result = replay(running)
    assert result.is_identical
    assert result.replayed == 8


def test_every_new_file_of_a_recording_can_be_replayed(tmp_path):
    with RecordedLoop(problem(), tmp_path, {"file_mb": 0.001}) as bench:
        bench.set_loops(True, True)
        bench.record()
        for _ in range(3):
            bench.frames(6)
            bench.flush()
        bench.finish()
    files = sorted(tmp_path.glob("beam1/*.h5"))
    assert len(files) >= 3
    results = [replay(path) for path in files]
    for result in results:
        assert_identical(result)
    assert sum(result.rows for result in results) == 18


def test_only_what_a_file_gives_is_changed(tmp_path):
    file = tmp_path / "other.toml"
    file.write_text(
        "[control_ho]\nki = 0.5\n[limits]\ncommand = 0.2\n[automation]\nauto_close = true\n"
        "[beam.2.control_ho]\nki = 0.7\nleak = [0.9, 0.8]\n"
    )
    assert changes_of_file(file, 1).values == {"control_ho.ki": 0.5, "limits.command": 0.2}
    assert changes_of_file(file, 2).values == {
        "control_ho.ki": 0.7,
        "control_ho.leak": (0.9, 0.8),
        "limits.command": 0.2,
    }


def test_changes_as_texts():
    found = changes_of_texts(["control_ho.ki = 0.5", "control_lo.kp=[0.1, 0.2]", 'control_lo.type="LEAKY"'])
    assert found.values == {"control_ho.ki": 0.5, "control_lo.kp": (0.1, 0.2), "control_lo.type": "LEAKY"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("control_ho.ki", "KEY=VALUE"),
        ("control_ho.gain=1", "control_ho.ki"),
        ("control_ho.ki=x", "TOML"),
        ("control_ho.leak=1.5", "leak"),
        ("limits.command=-1", "limits.command"),
    ],
)
def test_wrong_changes_are_refused(text, message):
    with pytest.raises((ConfigError, RequestError), match=message):
        changes_of_texts([text])
