"""Boxcar and bursts of non-destructive reads, in the running loop and in the commander's words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from baldr_tango.commands import execute
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.errors import BackendError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.rtc.arrays import boxcar_weights
from baldr_tango.telemetry.fields import FrameFlag
from legacy_zmq.protocol import reply
from tests.mirror_bench import MirrorBench, mirror_problem
from tests.problem import gains

RING = 64


@pytest.fixture
def bench():
    with MirrorBench(mirror_problem(), loop=LoopSettings(ring_frames=RING)) as running:
        yield running


def answer(bench, message):
    """Reply of the commander to a message."""
    return json.loads(reply(message, lambda name, args: execute(bench.beam, name, args)))


class Camera:
    """Answers like a camera server."""

    def __init__(self, reads=8, rate_hz=1500.0, mode="globalresetbursts"):
        self._answers = reads, rate_hz, mode

    def nbreadworeset(self):
        return self._answers[0]

    def fps(self):
        return self._answers[1]

    def cli(self, text):
        assert text == "mode raw"
        return f"  {self._answers[2]}\r\nfli-cli>"


class TestBoxcar:
    """The running mean."""

    @pytest.mark.parametrize("frames", [2, 3, 10, RING])
    def test_errors_come_from_the_mean_that_was_asked_for(self, bench, frames):
        assert bench.ask("change_boxcar", frames) == {"ok": True, "boxcar": frames}
        signals = bench.run(frames + 5, "signal")
        mean = boxcar_weights(frames).astype(float) @ signals[-frames:]
        single = bench.parameters.reconstructor_lo @ signals[-1]
        np.testing.assert_allclose(bench.newest("e_LO"), bench.parameters.reconstructor_lo @ mean, atol=1e-6)
        assert np.abs(bench.newest("e_LO") - single).max() > 1e-5, "the mean has an effect"

    def test_one_switches_it_off(self, bench):
        bench.ask("change_boxcar", 5)
        bench.run(10)
        bench.ask("change_boxcar", 1)
        signal = bench.run(1, "signal")[0]
        np.testing.assert_allclose(
            bench.newest("e_LO"), bench.parameters.reconstructor_lo @ signal, atol=1e-6
        )

    @pytest.mark.parametrize("message", ["change_boxcar 7", "change_boxcar [7]", 'change_boxcar 7,""'])
    def test_its_forms(self, bench, message):
        assert answer(bench, message) == {"boxcar": 7, "ok": True}
        assert bench.loop.slots.switch(d.BOXCAR) == 7
        assert bench.loop.parameters.boxcar == 7, "what stability is judged with"
        assert bench.beam.read(["boxcar"]) == {"boxcar": 7}

    @pytest.mark.parametrize("value", ["0", "-3", "2.5", '"x"', "true", "100000"])
    def test_wrong_numbers_change_nothing(self, bench, value):
        found = answer(bench, f"change_boxcar {value}")
        assert found["ok"] is False
        assert bench.loop.slots.switch(d.BOXCAR) == 1

    def test_the_ring_is_the_limit(self, bench):
        most = bench.loop.arrays.ring.capacity
        assert answer(bench, f"change_boxcar {most}")["ok"] is True
        assert str(most) in answer(bench, f"change_boxcar {most + 1}")["error"]

    def test_a_missing_number_is_an_error(self, bench):
        assert answer(bench, "change_boxcar")["ok"] is False

    def test_a_larger_ring_does_not_lend_it_records_that_are_gone(self, bench):
        bench.run(3 * RING)
        bench.loop.resize_ring(8 * RING)
        bench.ask("change_boxcar", 3 * RING)
        signal = bench.run(1, "signal")[0]
        np.testing.assert_allclose(
            bench.newest("e_LO"), bench.parameters.reconstructor_lo @ signal, atol=1e-6
        )

    def test_it_outlives_a_new_configuration(self, bench):
        bench.ask("change_boxcar", 7)
        loop = RealTimeLoop(mirror_problem(1, boxcar=3), bench.settings, bench.beam.log)
        bench.beam.processing.configure(loop)
        assert loop.slots.switch(d.BOXCAR) == 7
        assert loop.parameters.boxcar == 7

    def test_without_a_command_the_configuration_decides(self, bench):
        loop = RealTimeLoop(mirror_problem(1, boxcar=3), bench.settings, bench.beam.log)
        bench.beam.processing.configure(loop)
        assert loop.slots.switch(d.BOXCAR) == 3


class Ramp:
    """A camera without reset between reads: each frame is the charge since the last reset."""

    def __init__(self, parameters, rng, reads, pedestal=1500.0):
        self.parameters, self.reads, self.pedestal = parameters, reads, pedestal
        pixels = parameters.dark.size
        light = rng.uniform(0.5, 1.5, pixels)
        self.light = np.round(300.0 * light)
        self.bias = np.round(rng.uniform(0, 400, pixels))
        self.read = 0

    def skip(self, frames):
        """Frames that are not seen."""
        self.read += frames

    def next(self):
        """The next read."""
        charge = self.read % self.reads + 1
        self.read += 1
        frame = self.pedestal + self.bias + charge * self.light
        return frame.astype(np.int32).reshape(self.parameters.frame_shape)

    @property
    def signal(self):
        """Signal of this light."""
        p = self.parameters
        image = p.pixels_to_actuators @ self.light / self.light.sum()
        return (image - p.reference) / p.clear_pupil


class TestBurst:
    """Slopes of non-destructive reads."""

    @pytest.mark.parametrize("reads", [2, 3, 8, 100])
    def test_every_read_but_the_first_gives_the_true_light(self, bench, rng, reads):
        ramp = Ramp(bench.parameters, rng, reads)
        bench.ask("configure_burst", {"reads": reads})
        for n in range(2 * reads + 3):
            bench.step(ramp.next())
            if n % reads == 0:
                assert bench.newest("flux") == 0.0
                assert FrameFlag(int(bench.newest("flags"))) & FrameFlag.SKIPPED
                continue
            assert bench.newest("flux") == pytest.approx(ramp.light.sum(), rel=1e-6)
            np.testing.assert_allclose(bench.newest("signal"), ramp.signal, atol=2e-5)
        assert bench.counter(d.SKIPPED) == 0, "a first read is no bad frame"

    def test_the_first_read_after_a_reset_holds_the_command(self, rng):
        gain = gains(2, kp=0.3, ki=0.0)
        with MirrorBench(mirror_problem(control_lo=gain)) as bench:
            ramp = Ramp(bench.parameters, rng, 4)
            bench.ask("configure_burst", {"reads": 4})
            bench.set_loops(True, False)
            writes = []
            for _ in range(12):
                before = bench.channel.counter()
                command = bench.step(ramp.next())
                writes.append(bench.channel.counter() - before)
                if len(writes) > 1:
                    assert command.any()
                    np.testing.assert_array_equal(bench.newest("command"), command.astype(np.float32))
            assert writes == [0, 1, 1, 1] * 3

    def test_it_begins_in_the_middle_of_a_burst(self, bench, rng):
        ramp = Ramp(bench.parameters, rng, 8)
        ramp.skip(5)
        bench.ask("configure_burst", {"reads": 8})
        fluxes = [float(bench.step(ramp.next()) is not None and bench.newest("flux")) for _ in range(19)]
        held = [n for n, flux in enumerate(fluxes) if flux == 0.0]
        assert held == [0, 3, 11]
        assert {round(flux) for flux in fluxes if flux} == {round(ramp.light.sum())}

    @pytest.mark.parametrize("lost", [1, 3, 8, 9, 40])
    def test_lost_reads_leave_the_slope_true(self, bench, rng, lost):
        ramp = Ramp(bench.parameters, rng, 8)
        bench.ask("configure_burst", {"reads": 8})
        for n in range(30):
            if n == 11:
                ramp.skip(lost)
                bench.lose(lost)
            bench.step(ramp.next())
            if bench.newest("flux"):
                assert bench.newest("flux") == pytest.approx(ramp.light.sum(), rel=1e-6)
        assert bench.counter(d.LOST) == lost

    def test_the_noise_is_that_of_a_least_squares_fit(self, bench, rng):
        """Variance of the slope of m reads with white noise: 12 sigma^2 / (m (m^2 - 1))."""
        reads, sigma, pixels = 6, 40.0, bench.parameters.dark.size
        ramp = Ramp(bench.parameters, rng, reads)
        bench.ask("configure_burst", {"reads": reads})
        found = {m: [] for m in range(2, reads + 1)}
        for _ in range(60):
            for m in range(1, reads + 1):
                noise = np.round(rng.normal(0, sigma, bench.parameters.frame_shape)).astype(np.int32)
                bench.step(ramp.next() + noise)
                if m > 1:
                    found[m].append(float(bench.newest("flux")))
        for m, fluxes in found.items():
            expected = np.sqrt(12 * sigma**2 / (m * (m**2 - 1)) * pixels)
            assert np.std(fluxes) == pytest.approx(expected, rel=0.4), f"{m} reads"
            assert np.mean(fluxes) == pytest.approx(ramp.light.sum(), abs=4 * expected / np.sqrt(len(fluxes)))

    def test_a_boxcar_passes_over_the_first_reads(self, bench, rng):
        ramp = Ramp(bench.parameters, rng, 3)
        bench.ask("configure_burst", {"reads": 3})
        bench.ask("change_boxcar", 10)
        for n in range(40):
            bench.step(ramp.next())
            if n > 20 and n % 3:
                expected = bench.parameters.reconstructor_lo @ ramp.signal
                np.testing.assert_allclose(bench.newest("e_LO"), expected, atol=1e-5)

    def test_switched_off_every_frame_stands_for_itself(self, bench, rng):
        bench.ask("configure_burst", {"reads": 4})
        for off in (0, 1):
            assert bench.ask("configure_burst", {"reads": off}) == {"ok": True, "reads": 1, "burst": False}
        for _ in range(5):
            frame = bench.frame()
            bench.step(frame)
            light = frame.ravel() - bench.parameters.dark
            assert bench.newest("flux") == pytest.approx(light.sum(), rel=1e-6)

    @pytest.mark.parametrize(
        "message",
        ["configure_burst", "configure_burst []", "configure_burst [0.0002]", "configure_burst 0.0002"],
    )
    def test_the_camera_is_asked(self, bench, monkeypatch, message):
        monkeypatch.setattr(bench.beam, "camera_client", Camera)
        found = answer(bench, message)
        assert (found["ok"], found["reads"], found["burst"], found["frequency"]) == (True, 8, True, 1500.0)
        assert found["phase"] == (0.0002 if "0.0002" in message else 0.0)
        assert bench.loop.slots.switch(d.BURST) == 8
        assert bench.beam.read(["burst_reads"]) == {"burst_reads": 8}

    @pytest.mark.parametrize(("reads", "mode"), [(2, "globalresetcds"), (1, "globalresetbursts"), (0, "")])
    def test_a_camera_whose_frames_stand_for_themselves_switches_it_off(
        self, bench, monkeypatch, reads, mode
    ):
        bench.ask("configure_burst", {"reads": 4})
        monkeypatch.setattr(bench.beam, "camera_client", lambda: Camera(reads=reads, mode=mode))
        found = answer(bench, "configure_burst")
        assert (found["reads"], found["burst"]) == (1, False)
        assert bench.loop.slots.switch(d.BURST) == 1

    def test_a_silent_camera_changes_nothing(self, bench, monkeypatch):
        def silent():
            raise BackendError("no answer")

        bench.ask("configure_burst", {"reads": 4})
        monkeypatch.setattr(bench.beam, "camera_client", silent)
        assert answer(bench, "configure_burst") == {"error": "no answer", "ok": False}
        assert bench.loop.slots.switch(d.BURST) == 4

    @pytest.mark.parametrize(
        "argument", ['{"reads":-1}', '{"reads":1000000}', '{"reads":2.5}', '{"read":2}', '"x"', "-0.1", "{}"]
    )
    def test_wrong_arguments_change_nothing(self, bench, argument):
        assert answer(bench, f"configure_burst {argument}")["ok"] is False
        assert bench.loop.slots.switch(d.BURST) in (0, 1)

    def test_it_outlives_a_new_configuration(self, bench):
        bench.ask("configure_burst", {"reads": 4})
        loop = RealTimeLoop(mirror_problem(1), bench.settings, bench.beam.log)
        bench.beam.processing.configure(loop)
        assert loop.slots.switch(d.BURST) == 4


@pytest.fixture
def rng():
    return np.random.default_rng(21)


def test_before_a_configuration_there_is_nothing_to_process(bench):
    loop, bench.beam.loop = bench.beam.loop, None
    for request in (("change_boxcar", 3), ("configure_burst", {"reads": 3})):
        with pytest.raises(StateError, match="readBDRConfig"):
            bench.ask(*request)
    assert bench.beam.read(["boxcar"]) == {"boxcar": 1}
    bench.beam.loop = loop
