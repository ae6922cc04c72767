"""Identification of a disturbance: known statistics are found again, with the loop open or closed."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.beam.identification import first_order, noise_for, pseudo_open_loop
from baldr_tango.configuration.kalman import DEFAULT_NOISE, kalman_model
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from tests.beam_bench import BeamBench

A = np.array([0.9, 0.97, 0.99])
Q = np.array([4e-6, 1e-6, 5e-7])
R = np.array([1e-5, 5e-6, 1e-4])


def simulate(frames, gain, seed=1):
    """Telemetry of an integrator of this gain, one frame late, on an AR(1) disturbance with noise."""
    rng = np.random.default_rng(seed)
    x, u = np.zeros(3), np.zeros(3)
    errors, outputs = [], []
    for _ in range(frames):
        e = x - u + rng.normal(0.0, np.sqrt(R))
        errors.append(e)
        u = u + gain * e
        outputs.append(u)
        x = A * x + rng.normal(0.0, np.sqrt(Q))
    return {
        "frame": np.arange(frames),
        "flags": np.zeros(frames, dtype=np.uint16),
        "e_LO": np.array(errors),
        "u_LO": np.array(outputs),
    }


@pytest.mark.parametrize("gain", [0.0, 0.3])
def test_known_statistics_are_found_again(gain):
    a, q, r = first_order(pseudo_open_loop(simulate(60000, gain), "e_LO", "u_LO"), np.ones(3))
    np.testing.assert_allclose(a, A, atol=0.012)
    np.testing.assert_allclose(r, R, rtol=0.1)
    np.testing.assert_allclose(q, Q, rtol=0.35)


def test_the_identified_gain_is_nearly_as_good_as_the_true_one():
    """What counts is the residual: that of the identified regulator on the true disturbance."""
    a, q, r = first_order(pseudo_open_loop(simulate(4000, 0.3), "e_LO", "u_LO"), np.ones(3))
    one = np.eye(3)
    found = kalman_model(np.diag(a), one, one, np.diag(q), np.diag(r))
    true = kalman_model(np.diag(A), one, one, np.diag(Q), np.diag(R))
    squares = {}
    for name, model in (("found", found), ("true", true)):
        rng = np.random.default_rng(5)
        x, u, total = np.zeros(3), np.zeros(3), np.zeros(3)
        gain, leak = np.diag(model.gain), np.diag(model.transition)
        for _ in range(20000):
            total += (x - u) ** 2
            u = leak * (u + gain * (x - u + rng.normal(0.0, np.sqrt(R))))
            x = A * x + rng.normal(0.0, np.sqrt(Q))
        squares[name] = total / 20000
    assert (squares["found"] < 1.15 * squares["true"]).all()


def test_gaps_and_skipped_frames_are_left_out():
    records = simulate(3000, 0.3)
    clean = pseudo_open_loop(records, "e_LO", "u_LO")
    broken = {name: values.copy() for name, values in records.items()}
    broken["frame"][1000:] += 7
    broken["flags"][2000] = d.FLAG_SKIPPED | d.FLAG_NOT_APPLIED
    broken["e_LO"][2000] = 1e3
    seen = pseudo_open_loop(broken, "e_LO", "u_LO")
    assert (~seen.known).nonzero()[0].tolist() == [999, 1999, 2000]
    np.testing.assert_array_equal(seen.values[seen.known], clean.values[seen.known])
    for lag in range(4):
        np.testing.assert_allclose(seen.covariance(lag), clean.covariance(lag), rtol=0.02)


def test_a_mode_that_shows_nothing_stays_still():
    seen = pseudo_open_loop({name: 0 * values for name, values in simulate(600, 0.3).items()}, "e_LO", "u_LO")
    seen.known[:] = True
    a, q, r = first_order(seen, np.array([1.0, 0.99, 0.5]))
    assert not q.any()
    assert r.tolist() == [DEFAULT_NOISE] * 3
    model = kalman_model(np.diag(a), np.eye(3), np.eye(3), np.diag(q), np.diag(r))
    assert not model.gain.any()


def test_white_noise_is_not_followed():
    rng = np.random.default_rng(3)
    records = simulate(4000, 0.0)
    records["e_LO"] = rng.normal(0.0, 0.01, (4000, 3))
    a, q, r = first_order(pseudo_open_loop(records, "e_LO", "u_LO"), np.ones(3))
    model = kalman_model(np.diag(a), np.eye(3), np.eye(3), np.diag(q), np.diag(r))
    assert np.diag(model.gain).max() < 0.1
    np.testing.assert_allclose(r, 1e-4, rtol=0.1)


def test_the_gain_is_bounded_by_more_noise():
    a, q = np.array([0.9, 0.99, 0.9999]), np.array([1e-4, 1e-6, 1e-3])
    one = np.eye(3)
    for gain in (0.1, 0.5, 0.9):
        r = noise_for(a, q, gain)
        model = kalman_model(np.diag(a), one, one, np.diag(q), np.diag(r))
        np.testing.assert_allclose(np.diag(model.gain), gain, rtol=1e-9)


def test_the_command_puts_the_model_in_force(tmp_path):
    with BeamBench(tmp_path, loop=LoopSettings(ring_frames=1024)) as bench:
        with pytest.raises(StateError, match="usable frames"):
            bench.ask("ctrl_identify", "LO")
        bench.step(700)
        with pytest.raises(RequestError, match="largest gain"):
            bench.ask("ctrl_identify", "LO", 600, 1.0)
        for frames in (499, 10**6):
            with pytest.raises(RequestError, match="frames: expected 500 to"):
                bench.ask("ctrl_identify", "LO", frames)
        answer = bench.ask("ctrl_identify", "LO", 600)
        assert answer["frames"] == 599
        bench.ask("ctrl_set", "LO", "ctrl_type", "KALMAN")
        for name in ("A", "Q", "R", "K"):
            np.testing.assert_array_equal(
                np.diag(bench.ask("ctrl_get", "LO", name)["value"]), answer[name], err_msg=name
            )
