"""Measured against theory: the closed loop's response to an injected signal, frame by frame.

With the command of a frame shown by the frame `delay` later, and C the controller, a signal w added to the
command leaves ``w / (1 + C z^-delay)`` on the mirror, and the sensor sees that, `delay` frames later. A
signal t in the set point is followed as ``C z^-delay / (1 + C z^-delay)``.
"""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop_data as d
from tests.mirror_bench import MirrorBench
from tests.problem import gains
from tests.rejection import (
    LinearPlant,
    Spectra,
    controller_response,
    decibels,
    linear_problem,
    modal_records,
    rejection,
)

FRAMES = 4096
SEGMENT = 256
MOST_DB = 0.5
MOST_DEG = 5.0
COHERENT = 0.95
"""Tolerances where the coherence is at least this."""

CONTROLLERS = {
    "PID": gains(2, kp=0.15, ki=0.3, kd=0.05),
    "LEAKY": gains(2, ki=0.4, leak=0.95),
}
BANDS = {"prbs": (0.0, 0.5), "chirp": (0.035, 0.45)}
"""Frequencies [cycles per frame] that are judged: for the chirp, the sweep of a segment off its ends."""
SIGNALS = {
    "prbs": {"waveform": "prbs"},
    "chirp": {"waveform": "chirp", "chirp_f0": 2.0, "chirp_f1": 480.0, "chirp_T": FRAMES / 1000.0},
}


def measure(kind, signal, delay=1, apply_to="command"):
    """Close the low-order loop on the plant, inject into tip and record."""
    parameters = linear_problem(controller_type_lo=kind, control_lo=CONTROLLERS[kind])
    plant = LinearPlant(parameters, delay, noise=2e-4)
    with MirrorBench(parameters, loop=LoopSettings(ring_frames=FRAMES)) as bench:
        bench.set_loops(True, False)
        bench.ask("inject", {**SIGNALS[signal], "basis": "zernike", "index": 0, "branch": "LO",
                             "amplitude": 0.2, "apply_to": apply_to})  # fmt: skip
        for _ in range(FRAMES):
            plant.command(bench.step(plant.frame()))
        assert bench.counter(d.LOST) == 0
        assert bench.counter(d.TRIP) == 0
        return modal_records(bench.loop.arrays.ring, parameters, mode=0)


def compare(spectra, theory, least_coherent, band=BANDS["prbs"]):
    """Judge a measured response where it is coherent, which has to be most of the band."""
    inside = (spectra.frequency > band[0]) & (spectra.frequency <= band[1])
    seen = inside & (spectra.coherence >= COHERENT)
    share = seen.sum() / inside.sum()
    assert share >= least_coherent, f"coherent at {share:.0%} of the frequencies only"
    ratio = spectra.response[seen] / theory[seen]
    assert np.abs(decibels(ratio)).max() < MOST_DB
    assert np.abs(np.degrees(np.angle(ratio))).max() < MOST_DEG


def theory_of(kind, frequency):
    """Point on the unit circle and controller at frequencies in cycles per frame; not at 0."""
    z = np.exp(2j * np.pi * np.maximum(frequency, 1e-9))
    return z, controller_response(kind, CONTROLLERS[kind], 0, z)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("kind", CONTROLLERS)
def test_rejection_is_that_of_the_configured_controller(kind, signal):
    records = measure(kind, signal)
    mirror = Spectra(records["injected"], records["command"], SEGMENT)
    z, controller = theory_of(kind, mirror.frequency)
    left = rejection(controller, 1, z)
    compare(mirror, left, 0.95, BANDS[signal])
    sensor = Spectra(records["injected"], records["error"], SEGMENT)
    compare(sensor, left / z, 0.95, BANDS[signal])
    # The judge can tell: with other gains, or one frame later, it is another loop.
    for wrong in (rejection(0.8 * controller, 1, z), rejection(controller, 2, z)):
        with pytest.raises(AssertionError, match="<"):
            compare(mirror, wrong, 0.95, BANDS[signal])


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_rejection_with_another_frame_of_delay(kind):
    records = measure(kind, "prbs", delay=2)
    mirror = Spectra(records["injected"], records["command"], SEGMENT)
    z, controller = theory_of(kind, mirror.frequency)
    compare(mirror, rejection(controller, 2, z), 0.95)
    sensor = Spectra(records["injected"], records["error"], SEGMENT)
    compare(sensor, rejection(controller, 2, z) / z**2, 0.95)


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_set_point_is_followed_as_theory_says(kind):
    records = measure(kind, "prbs", apply_to="setpoint")
    sensor = Spectra(records["injected"], records["error"], SEGMENT)
    z, controller = theory_of(kind, sensor.frequency)
    compare(sensor, 1.0 - rejection(controller, 1, z), 0.95)
