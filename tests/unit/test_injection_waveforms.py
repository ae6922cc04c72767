"""Injected signals against their formulas, frame by frame: waveform, gate, hold, latency, lost frames."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.bases import basis
from baldr_tango.kernels.injection import REGISTER_MASK, prbs_step
from baldr_tango.streams import Stream
from tests.harness import wait_for
from tests.mirror_bench import MirrorBench, mirror_problem
from tests.waveforms import expected, shift_register

RATE_HZ = 1000.0
MAP = basis("hadamard").mode(5)


@pytest.fixture(scope="module")
def bench():
    with MirrorBench(mirror_problem(frame_rate_hz=RATE_HZ)) as running:
        yield running


def follow(bench, losses, frames, **settings):
    """Inject into the command and compare every frame; `losses` gives frames lost before some of them."""
    wanted = {"basis": "hadamard", "index": 5, "branch": "ALL", "amplitude": 0.2, **settings}
    bench.ask("inject", wanted)
    s = bench.beam.injection.settings
    number, values = -1, []
    for i in range(frames):
        bench.lose(losses.get(i, 0))
        number += 1 + (losses.get(i, 0) if i else 0)
        command = bench.step(bench.frame())
        value = expected(s, number, RATE_HZ)
        np.testing.assert_allclose(bench.newest("c_inj"), value * MAP, atol=1e-7, err_msg=f"frame {number}")
        np.testing.assert_allclose(command, value * MAP, atol=1e-7, err_msg=f"frame {number}")
        values.append(value)
    return np.array(values)


WAVEFORMS = {
    "sine": {"freq_hz": 130.0, "phase_deg": 25.0},
    "square": {"freq_hz": 100.0, "phase_deg": 90.0, "duty": 0.3},
    "step": {},
    "chirp": {"chirp_f0": 20.0, "chirp_f1": 300.0, "chirp_T": 0.02, "phase_deg": 45.0},
    "prbs": {"prbs_seed": 12345},
    "none": {},
}


@pytest.mark.parametrize("waveform", WAVEFORMS)
def test_every_frame_has_the_formulas_value(bench, waveform):
    values = follow(bench, {}, 30, waveform=waveform, **WAVEFORMS[waveform])
    distinct = {"step": 1, "none": 1, "square": 2, "prbs": 2}.get(waveform, 10)
    assert len(np.unique(values.round(9))) >= distinct
    assert values.any() == (waveform != "none")


@pytest.mark.parametrize("waveform", ["sine", "square", "chirp", "prbs"])
def test_a_sample_lasts_as_long_as_asked(bench, waveform):
    values = follow(bench, {}, 30, waveform=waveform, hold_frames=4, **WAVEFORMS[waveform])
    held = values[: len(values) // 4 * 4].reshape(-1, 4)
    assert np.all(held == held[:, :1])


@pytest.mark.parametrize("latency", [0, 1, 2, 5])
def test_a_sample_acts_exactly_latency_frames_later(bench, latency):
    direct = follow(bench, {}, 20, waveform="prbs", prbs_seed=99)
    late = follow(bench, {}, 20 + latency, waveform="prbs", prbs_seed=99, latency_frames=latency)
    assert not late[:latency].any()
    np.testing.assert_array_equal(late[latency:], direct)


@pytest.mark.parametrize("waveform", ["sine", "prbs"])
@pytest.mark.parametrize("latency", [0, 1, 2, 5])
def test_lost_frames_take_their_place_in_the_waveform_and_in_the_latency(bench, waveform, latency):
    losses = {3: 1, 7: 4, 8: 30, 20: 2}
    follow(bench, losses, 25, waveform=waveform, latency_frames=latency, hold_frames=3, **WAVEFORMS[waveform])


def test_latency_longer_than_any_buffer(bench):
    values = follow(bench, {5: 1500}, 12, waveform="sine", latency_frames=1500, freq_hz=130.0)
    assert not values[:5].any()
    assert values[6:].any()


@pytest.mark.parametrize("waveform", ["step", "sine", "prbs"])
def test_gates_are_exact_to_the_frame(bench, waveform):
    settings = {"waveform": waveform, "t_start_s": 0.007, "t_stop_s": 0.013, "phase_deg": 90.0}
    values = follow(bench, {}, 25, **settings)
    assert np.flatnonzero(values).tolist() == list(range(7, 14))
    late = follow(bench, {}, 25, latency_frames=3, hold_frames=4, **settings)
    assert np.flatnonzero(late).tolist() == list(range(10, 17))


def test_a_gate_between_frames_opens_with_the_next_one(bench):
    values = follow(bench, {}, 12, waveform="step", t_start_s=0.0031, t_stop_s=0.0078)
    assert np.flatnonzero(values).tolist() == [4, 5, 6, 7]


def test_a_chirp_can_be_repeated(bench):
    settings = {"waveform": "chirp", **WAVEFORMS["chirp"]}
    first = follow(bench, {}, 30, **settings)
    np.testing.assert_array_equal(follow(bench, {}, 30, **settings), first)
    assert np.ptp(first[-8:]) == 0.0, "after its end a chirp stays at its last phase"


def test_the_square_wave_is_on_for_its_duty_and_never_negative(bench):
    values = follow(bench, {}, 40, waveform="square", freq_hz=50.0, duty=0.25)
    np.testing.assert_allclose(values, np.tile([0.2] * 5 + [0.0] * 15, 2))


def test_the_signal_goes_on_when_the_camera_starts_counting_again(bench):
    bench.ask(
        "inject",
        {"waveform": "prbs", "basis": "hadamard", "index": 5, "branch": "ALL", "amplitude": 0.2},
    )
    s = bench.beam.injection.settings
    for n in range(20):
        if n == 8:
            replace_camera(bench)
        bench.step(bench.frame())
        np.testing.assert_allclose(bench.newest("c_inj"), expected(s, n, RATE_HZ) * MAP, atol=1e-7)


def replace_camera(bench):
    """Have another camera server take the stream over."""
    bench.camera.close()
    bench.camera = Stream.create("baldr1", bench.parameters.frame_shape, np.int32, bench.directory)
    reopens = bench.loop.reopens

    def reopened():
        bench.loop.check_streams()
        return bench.loop.reopens > reopens and bench.loop.has_streams

    wait_for(reopened, 10.0, "opening the streams again")
    bench.wait_running()


class TestPseudoRandomSequence:
    """The shift register of the kernel."""

    @staticmethod
    def matrix():
        """The step as a matrix over GF(2): column i is what it does to bit i."""
        columns = [prbs_step(1 << i) for i in range(31)]
        return np.array([[column >> row & 1 for column in columns] for row in range(31)], dtype=np.int64)

    def test_its_bits_follow_the_recurrence(self):
        register, bits = 0x1234567, []
        for _ in range(2000):
            register = prbs_step(register)
            bits.append(register & 1)
        assert bits == shift_register(0x1234567, 2000)

    def test_its_period_is_the_longest_there_is(self):
        """2^31 - 1 is prime, so a map of that order takes every register but 0 through all others."""
        one, step = np.eye(31, dtype=np.int64), self.matrix()
        power = step
        for _ in range(31):
            power = power @ power % 2
        np.testing.assert_array_equal(power, step)  # step^(2^31) = step
        assert (step != one).any()
        assert prbs_step(0) == 0
        assert all(prbs_step(1 << i) <= REGISTER_MASK for i in range(31))

    def test_it_is_balanced_and_uncorrelated(self):
        register, n, values = 0xACE1, 1 << 15, []
        for _ in range(n):
            register = prbs_step(register)
            values.append(1.0 if register & 1 else -1.0)
        values = np.array(values[64:])
        n = values.size
        assert abs(values.mean()) < 4 / np.sqrt(n)
        spectrum = np.abs(np.fft.rfft(values, 2 * n)) ** 2
        correlation = np.fft.irfft(spectrum)[:200] / n
        assert correlation[0] == pytest.approx(1.0)
        assert np.abs(correlation[1:]).max() < 5 / np.sqrt(n)
        reference = 2.0 * np.array(shift_register(0xACE1, n + 64)[64:]) - 1.0
        np.testing.assert_array_equal(values, reference)


def test_a_register_of_zeros_is_replaced(bench):
    values = follow(bench, {}, 20, waveform="prbs", prbs_seed=0)
    np.testing.assert_array_equal(values, follow(bench, {}, 20, waveform="prbs", prbs_seed=0xACE1))
