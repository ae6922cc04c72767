"""The virtual instrument: streams of the cameras and deformable mirrors of all beams, one compiled thread."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import RequestError
from baldr_tango.kernels import simulation
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.simulator.assembly import InstrumentModel
from baldr_tango.simulator.cubes import CubeHeader, CubeSaver
from baldr_tango.simulator.engine import Engine
from baldr_tango.simulator.masks import MASKS, REFERENCE_MASK
from baldr_tango.simulator.quirks import Quirks
from baldr_tango.simulator.streams import MAX_CHANNELS
from baldr_tango.simulator.view import View
from baldr_tango.simulator.weather import Weather

_log = logging.getLogger(__name__)

MAX_READS = 10000
"""Most non-destructive reads between two resets."""

MAX_RATE_HZ = 10000.0
"""Highest frame rate."""

SUBTRACTED_LEVEL_ADU = 1000.0
"""Level that the camera server adds when it subtracts a dark."""


@dataclass(frozen=True)
class InstrumentCounters:
    """What the virtual instrument has counted since its start."""

    ticks: int
    """Frame periods served (all beams)."""
    late_ticks: int
    """Frame periods that began more than half a period late; the clock restarts from there."""
    skipped_ticks: int
    """Whole frame periods left out because a tick came that late."""
    not_finite: int
    """Actuator commands that were not finite; the actuator stays where it is."""
    write_errors: int
    """Writes into a stream that failed."""


class VirtualInstrument:
    """Camera, phase masks, lamp and deformable mirrors of all beams, behind the real streams.

    Every method may be called from any thread at any time. Frames depend on the settings, the seed, the
    number of the frame and the mirror commands alone.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        """Build the optics; nothing is created or started yet.

        Raises
        ------
        ConfigError : settings that contradict each other, or a calibration that the linear plant cannot use.
        """
        self._beams = tuple(config.beams)
        self._model = InstrumentModel(config)
        self._engine = Engine(config, self._model)
        self._rate_hz = self._model.rate_hz
        self._gain = self._model.gain
        self._darks: dict[tuple[float, float], NDArray[np.float32]] = {}
        self._subtracts_dark = False
        self._last_mask: dict[int, str] = {}
        self.cubes = CubeSaver(
            self._engine.read_out,
            partial(self._engine.set, simulation.KEEP),
            [config.for_beam(beam).streams.camera for beam in self._beams],
            config.simulator.cube_directory,
            config.simulator.cube_frames,
            config.simulator.cube_max_mb,
            self._cube_header,
        )
        self._lock = threading.RLock()
        self.weather = Weather(config.simulator, self._model)
        self.quirks = Quirks.of(config.simulator)
        self.view = View(self._model, self._engine)
        self.set_rate(self._rate_hz)
        self.set_lamp(True)
        self.set_turbulence(config.simulator.turbulence)
        self.set_drop_every(config.simulator.drop_every)
        self.set_post_first(config.simulator.quirk_post_first)
        self.set_mirrors(True)
        self.set_reads(1)
        self.set_silent(config.simulator.quirk_silent_start)
        for beam in self._beams:
            self.put_mask(beam, _start_mask(config.for_beam(beam).mask))

    @property
    def beams(self) -> tuple[int, ...]:
        """Beams that are served."""
        return self._beams

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return self._engine.is_running

    def compile(self) -> None:
        """Compile the loop, or load it from the cache; `start` does it otherwise."""
        self._engine.compile()

    def start(self) -> None:
        """Create the streams and post frames until `stop`.

        Raises
        ------
        StateError : it runs already.
        BackendError : a stream cannot be created.
        """
        self._engine.start()
        _log.info("virtual instrument: beams %s at %g Hz", self._beams, self._rate_hz)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and remove the streams that `start` created; a second call does nothing.

        Raises
        ------
        BackendError : the thread did not end in time.
        """
        self.cubes.close(timeout_s)
        self._engine.stop(timeout_s)

    def __enter__(self) -> VirtualInstrument:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def rate_hz(self) -> float:
        """Frame rate [Hz]."""
        return self._rate_hz

    def set_rate(self, hz: float) -> None:
        """Change the frame rate [Hz]; the flux of a frame changes with the exposure time.

        Raises
        ------
        RequestError : not above 0 and at most 10000 Hz.
        """
        if not 0.0 < hz <= MAX_RATE_HZ:
            raise RequestError(f"frame rate: found {hz} Hz, allowed is above 0 to {MAX_RATE_HZ:g} Hz")
        with self._lock:
            self._rate_hz = float(hz)
            self._expose()
            store_release(self._engine.control, simulation.PERIOD_NS, round(1e9 / hz))

    @property
    def gain(self) -> float:
        """Camera gain."""
        return self._gain

    def set_gain(self, gain: float) -> None:
        """Change the camera gain; the ADU per electron change in proportion.

        Raises
        ------
        RequestError : not above 0.
        """
        if not (gain > 0.0 and math.isfinite(gain)):
            raise RequestError(f"camera gain: found {gain}, allowed is above 0")
        with self._lock:
            self._gain = float(gain)
            self._expose()

    def _cube_header(self) -> CubeHeader:
        return CubeHeader(self._rate_hz, self._gain, "NDMR" if self.slopes else "GCDS")

    def _expose(self) -> None:
        gain = self._gain / self._model.gain
        self._engine.levels[simulation.FLUX_SCALE] = gain * self._model.rate_hz / self._rate_hz
        self._engine.levels[simulation.GAIN_SCALE] = gain
        dark = self._model.dark(self._rate_hz, self._gain)
        recorded = self._darks.get((self._rate_hz, self._gain)) if self._subtracts_dark else None
        self._model.detector.dark[:] = dark if recorded is None else dark - recorded + SUBTRACTED_LEVEL_ADU

    @property
    def subtracts_dark(self) -> bool:
        """True while the camera server subtracts a dark that it has for this rate and gain."""
        return self._subtracts_dark and (self._rate_hz, self._gain) in self._darks

    def make_dark(self) -> None:
        """Record the dark of the present rate and gain, as with the light off; subtract it from now on."""
        with self._lock:
            self._darks[self._rate_hz, self._gain] = self._model.dark(self._rate_hz, self._gain)
            self._subtracts_dark = True
            self._expose()

    def set_dark_subtraction(self, on: bool) -> None:
        """Subtract recorded darks and add `SUBTRACTED_LEVEL_ADU`; at a rate and gain without one, nothing."""
        with self._lock:
            self._subtracts_dark = on
            self._expose()

    @property
    def lamp(self) -> bool:
        """True while the light source is on."""
        return self._engine.get(simulation.LAMP)

    def set_lamp(self, on: bool) -> None:
        """Switch the light source on or off."""
        self._engine.set(simulation.LAMP, on)

    def mask_in(self, beam: int) -> bool:
        """Tell whether the phase mask of `beam` is in the beam."""
        return self.mask(beam) != ""

    def mask(self, beam: int) -> str:
        """Name of the phase mask in `beam`; empty: none."""
        number = int(load_acquire(self._engine.control, simulation.MASK_IN + self._index(beam)))
        return MASKS[number - 1] if number else ""

    def put_mask(self, beam: int, mask: str) -> None:
        """Put a phase mask into `beam` from the next frame on; empty: none.

        Raises
        ------
        RequestError : no such beam or mask.
        """
        index = self._index(beam)
        if mask and mask not in MASKS:
            raise RequestError(f"mask: found {mask!r}, allowed are {', '.join(MASKS)}")
        with self._lock:
            if mask:
                self._last_mask[beam] = mask
            number = MASKS.index(mask) + 1 if mask else 0
            store_release(self._engine.control, simulation.MASK_IN + index, number)

    def move_mask(self, beam: int, in_: bool) -> None:
        """Move the phase mask of `beam` out, or the one in that was there last."""
        self._index(beam)
        self.put_mask(beam, self._last_mask[beam] if in_ else "")

    def turbulence(self, beam: int) -> bool:
        """Tell whether `beam` sees turbulence, tip/tilt jitter, vibration or a disturbance."""
        return self._engine.get(simulation.MASK_IN + len(self._beams) + self._index(beam))

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        """Switch turbulence (and jitter, vibration, disturbance) on or off, for one beam or for all."""
        for index in range(len(self._beams)) if beam is None else [self._index(beam)]:
            self._engine.set(simulation.MASK_IN + len(self._beams) + index, on)

    @property
    def silent(self) -> bool:
        """True while no frame is written or posted; the mirrors are served."""
        return self._engine.get(simulation.SILENT)

    def set_silent(self, silent: bool) -> None:
        """Stop or resume writing frames, as a camera does that was told ``stop`` or ``fetch``."""
        self._engine.set(simulation.SILENT, silent)

    @property
    def reads(self) -> int:
        """Reads between two resets of the detector; 1: every frame stands for itself."""
        return max(1, int(load_acquire(self._engine.control, simulation.READS)))

    def set_reads(self, reads: int) -> None:
        """Reset the detector after so many reads only: each frame shows the charge since the reset.

        Raises
        ------
        RequestError : not 1 to 10000.
        """
        if not 1 <= reads <= MAX_READS:
            raise RequestError(f"reads: found {reads}, allowed is 1 to {MAX_READS}")
        store_release(self._engine.control, simulation.READS, int(reads))

    @property
    def slopes(self) -> bool:
        """True while the camera server sends its slope filter of the newest nine frames."""
        return self._engine.get(simulation.SLOPES)

    def set_slopes(self, on: bool) -> None:
        """Send the slope filter of the newest nine frames, 1000 ADU above 60 times the slope, or frames."""
        self._engine.set(simulation.SLOPES, on)

    def set_saving(self, on: bool) -> None:
        """Write cubes of frames to disk, or end it."""
        self.cubes.switch(on)

    def set_post_first(self, post_first: bool) -> None:
        """Post frames before counting them, as the instrument's camera server does, or after."""
        self._engine.set(simulation.POST_FIRST, post_first)

    def set_drop_every(self, frames: int) -> None:
        """Leave out one frame of every `frames`; 0 leaves out none.

        Raises
        ------
        RequestError : negative.
        """
        if frames < 0:
            raise RequestError(f"drop every {frames} frames: allowed is 0 (none) or more")
        store_release(self._engine.control, simulation.DROP_EVERY, int(frames))

    @property
    def drop_every(self) -> int:
        """One frame of this many is left out; 0: none."""
        return int(load_acquire(self._engine.control, simulation.DROP_EVERY))

    @property
    def post_first(self) -> bool:
        """True while frames are posted before they are counted."""
        return self._engine.get(simulation.POST_FIRST)

    @property
    def mirrors(self) -> bool:
        """True while DM channels are summed and applied."""
        return self._engine.get(simulation.MIRRORS)

    def set_mirrors(self, on: bool) -> None:
        """Sum and apply the DM channels, or leave the mirrors as they are."""
        self._engine.set(simulation.MIRRORS, on)

    @property
    def n_channels(self) -> int:
        """DM channels of each mirror."""
        return self._engine.n_channels

    def set_channels(self, count: int) -> None:
        """Destroy all DM channels and create `count` new ones per mirror: every writer must open them again.

        Raises
        ------
        RequestError : not 1 to 16.
        """
        if not 1 <= count <= MAX_CHANNELS:
            raise RequestError(f"DM channels: found {count}, allowed is 1 to {MAX_CHANNELS}")
        self._engine.recreate_channels(count)

    def zero_channel(self, beam: int, channel: int | None = None) -> None:
        """Zero one DM channel of a beam, or all; the mirror follows at the next trigger by somebody else.

        Raises
        ------
        RequestError : no such beam or channel.
        """
        self._index(beam)
        if channel is not None and not 0 <= channel < self.n_channels:
            raise RequestError(f"DM channel: found {channel}, allowed is 0 to {self.n_channels - 1}")
        self._engine.zero_channel(beam, channel)

    def recreate_cameras(self) -> None:
        """Create the camera streams again, as the quirk ``recreate`` says; ``off``: leave them alone."""
        in_place = self.quirks.in_place(self._beams)
        if in_place is not None:
            self._engine.recreate_cameras(in_place)

    def counters(self) -> InstrumentCounters:
        """Report the counters of the thread."""
        counters = self._engine.counters
        return InstrumentCounters(
            ticks=int(load_acquire(counters, simulation.TICKS)),
            late_ticks=int(counters[simulation.LATE]),
            skipped_ticks=int(counters[simulation.SKIPPED]),
            not_finite=int(counters[simulation.NOT_FINITE]),
            write_errors=int(counters[simulation.WRITE_ERRORS]),
        )

    def _index(self, beam: int) -> int:
        try:
            return self._beams.index(beam)
        except ValueError:
            raise RequestError(
                f"beam {beam}: this instrument has {', '.join(map(str, self._beams))}"
            ) from None


def _start_mask(name: str) -> str:
    """Return the mask that is in the beam at the start: that of the calibration, if there is such a one."""
    return name if name in MASKS else REFERENCE_MASK
