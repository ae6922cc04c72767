"""What the virtual instrument publishes, and what of it may be set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from baldr_tango.errors import RequestError
from baldr_tango.interface import Value
from baldr_tango.simulator.instrument import MAX_RATE_HZ, VirtualInstrument
from baldr_tango.simulator.quirks import MAX_DELAY_S
from baldr_tango.simulator.truth import TruthMeans
from baldr_tango.simulator.weather import (
    MAX_FLUX_ADU,
    MAX_NOISE_ADU,
    MAX_RMS_NM,
    MAX_WIND_M_S,
    Weather,
)
from legacy_zmq.virtual_stages import MASKS, VirtualStages

BEAMS: Final = (1, 2, 3, 4)
"""Beams that an instrument may have; values of those that it has not are invalid."""

OUT: Final = "out"
"""Written in place of a mask's name, it takes the mask out of the beam."""


@dataclass(frozen=True)
class Source:
    """What runs behind the device."""

    instrument: VirtualInstrument
    stages: VirtualStages


@dataclass(frozen=True)
class Entry:
    """One published value of the virtual instrument."""

    value: Value
    get: Callable[[Source], Any]
    set: Callable[[Source, Any], None] | None = None


def _number(name: str, doc: str, unit: str, most: float | None, get: Any, set_: Any = None) -> Entry:
    value = Value(
        name,
        float,
        doc,
        unit,
        format="%8.2f",
        archive_change=0.0,
        minimum=None if set_ is None else 0.0,
        maximum=None if set_ is None else most,
    )
    return Entry(value, get, set_)


def _weather(name: str, doc: str, unit: str, most: float, get: Any, set_: Any) -> Entry:
    return _number(
        name,
        doc,
        unit,
        most,
        lambda source: get(source.instrument.weather),
        lambda source, value: set_(source.instrument.weather, value),
    )


def _switch(name: str, doc: str, get: Any, set_: Any) -> Entry:
    return Entry(Value(name, bool, doc), get, set_)


def _counter(name: str, doc: str) -> Entry:
    return Entry(
        Value(name, int, doc, archive_change=0), lambda source: getattr(source.instrument.counters(), name)
    )


def _truth(name: str, doc: str, unit: str, get: Callable[[TruthMeans], float]) -> Entry:
    def read(source: Source) -> Any:
        return np.array([math.nan if one is None else get(one) for one in source.instrument.view.truth()])

    doc = f"{doc}, of each beam in order, mean of a second"
    return Entry(
        Value(name, float, doc, unit, shape="spectrum", max_dim=(len(BEAMS), 0), format="%8.3f"), read
    )


def _set_vibrations(source: Source, given: Any) -> None:
    values = np.asarray([] if given is None else given, dtype=np.float64).ravel()
    if values.size % 2:
        raise RequestError(
            f"vibrations: found {values.size} numbers, expected pairs of frequency and amplitude"
        )
    source.instrument.weather.set_vibrations(values[0::2].tolist(), values[1::2].tolist())


def _vibrations(source: Source) -> Any:
    return np.array(source.instrument.weather.vibrations).T.ravel()


def _set_mask(beam: int, source: Source, name: str) -> None:
    if beam not in source.stages.beams:
        raise RequestError(f"beam {beam}: this instrument has {', '.join(map(str, source.stages.beams))}")
    if name.lower() == OUT:
        source.stages.move_out(beam)
    elif name in MASKS:
        source.stages.move_to_mask(beam, name)
    else:
        raise RequestError(f"mask: found {name!r}, expected {OUT} or one of {', '.join(MASKS)}")


def _of_beam(beam: int) -> list[Entry]:
    def present(read: Callable[[Source], Any]) -> Callable[[Source], Any]:
        return lambda source: read(source) if beam in source.instrument.beams else None

    def image(name: str, doc: str, side: int, unit: str, read: Callable[[Source], Any]) -> Entry:
        value = Value(name, float, doc, unit, shape="image", max_dim=(side, side), slow=True)
        return Entry(value, present(read))

    return [
        Entry(
            Value(
                f"mask_{beam}",
                str,
                f"phase mask in beam {beam}, out when there is none; writing a name moves the stage",
            ),
            present(lambda source: source.stages.mask(beam) or OUT),
            lambda source, name: _set_mask(beam, source, name),
        ),
        image(
            f"dm_map_{beam}",
            f"command of the mirror of beam {beam} about its flat",
            12,
            "DM units",
            lambda source: source.instrument.view.dm_map(beam),
        ),
        image(
            f"dm_opd_{beam}",
            f"path difference that the mirror of beam {beam} makes; not a number outside the pupil",
            32,
            "nm",
            lambda source: source.instrument.view.dm_opd(beam),
        ),
        image(
            f"opd_{beam}",
            f"wavefront error of beam {beam} behind its mirror; not a number outside the pupil",
            32,
            "nm",
            lambda source: source.instrument.view.opd(beam),
        ),
    ]


def _entries() -> tuple[Entry, ...]:
    return (
        _number(
            "rate_hz",
            "frame rate",
            "Hz",
            MAX_RATE_HZ,
            lambda source: source.instrument.rate_hz,
            lambda source, value: source.instrument.set_rate(value),
        ),
        _number(
            "gain",
            "camera gain",
            "",
            100.0,
            lambda source: source.instrument.gain,
            lambda source, value: source.instrument.set_gain(value),
        ),
        _switch(
            "lamp",
            "light source on",
            lambda source: source.instrument.lamp,
            lambda source, on: source.instrument.set_lamp(on),
        ),
        _switch(
            "turbulence",
            "any beam sees turbulence, jitter and vibrations; writing switches all beams",
            lambda source: any(map(source.instrument.turbulence, source.instrument.beams)),
            lambda source, on: source.instrument.set_turbulence(on),
        ),
        _switch(
            "silent",
            "no frame is written or posted",
            lambda source: source.instrument.silent,
            lambda source, on: source.instrument.set_silent(on),
        ),
        _switch(
            "mirrors",
            "DM channels are summed and applied",
            lambda source: source.instrument.mirrors,
            lambda source, on: source.instrument.set_mirrors(on),
        ),
        Entry(
            Value("drop_every", int, "one frame of this many is left out; 0: none", unit="frames", minimum=0),
            lambda source: source.instrument.drop_every,
            lambda source, frames: source.instrument.set_drop_every(frames),
        ),
        _weather(
            "residual_rms_nm",
            "wavefront error that the first stage leaves",
            "nm",
            MAX_RMS_NM,
            lambda weather: weather.residual_rms_nm,
            Weather.set_residual_rms,
        ),
        _weather(
            "seeing",
            "seeing at 500 nm of which the first stage leaves that error",
            "arcsec",
            10.0,
            lambda weather: weather.seeing_arcsec,
            Weather.set_seeing,
        ),
        _weather(
            "wind_speed",
            "speed of the frozen turbulence",
            "m/s",
            MAX_WIND_M_S,
            lambda weather: weather.wind_speed_m_s,
            Weather.set_wind_speed,
        ),
        _weather(
            "tip_tilt_rms_nm",
            "slow tip/tilt that the first stage leaves",
            "nm",
            MAX_RMS_NM,
            lambda weather: weather.tip_tilt_rms_nm,
            Weather.set_tip_tilt_rms,
        ),
        Entry(
            Value(
                "vibrations",
                float,
                "tip/tilt vibrations: frequency [Hz] and amplitude [nm rms] of each, in turn",
                shape="spectrum",
                max_dim=(16, 0),
            ),
            _vibrations,
            _set_vibrations,
        ),
        _weather(
            "flux_adu",
            "light of a frame at the frame rate and gain of the start",
            "ADU",
            MAX_FLUX_ADU,
            lambda weather: weather.flux_adu,
            Weather.set_flux,
        ),
        Entry(
            Value(
                "magnitude",
                float,
                "magnitude of the star",
                "mag",
                format="%6.2f",
                minimum=-10.0,
                maximum=30.0,
                archive_change=0.0,
            ),
            lambda source: source.instrument.weather.magnitude,
            lambda source, value: source.instrument.weather.set_magnitude(value),
        ),
        _weather(
            "read_noise_adu",
            "read noise of a pixel",
            "ADU",
            MAX_NOISE_ADU,
            lambda weather: weather.read_noise_adu,
            Weather.set_read_noise,
        ),
        _number(
            "quirk_cli_delay_s",
            "time that the camera's command line takes",
            "s",
            MAX_DELAY_S,
            lambda source: source.instrument.quirks.cli_delay_s,
            lambda source, value: source.instrument.quirks.set_cli_delay(value),
        ),
        _switch(
            "quirk_nul_endings",
            "replies of the control servers end with a NUL",
            lambda source: source.instrument.quirks.nul_endings,
            lambda source, on: setattr(source.instrument.quirks, "nul_endings", bool(on)),
        ),
        _switch(
            "quirk_post_first",
            "frames are posted before they are counted",
            lambda source: source.instrument.post_first,
            lambda source, on: source.instrument.set_post_first(on),
        ),
        _switch(
            "quirk_fps_junk",
            "the camera answers the question for its frame rate without a number",
            lambda source: source.instrument.quirks.fps_junk,
            lambda source, on: setattr(source.instrument.quirks, "fps_junk", bool(on)),
        ),
        Entry(
            Value(
                "quirk_recreate",
                str,
                "what crop_mode does to the camera streams: off, new_file, in_place or camera_server",
            ),
            lambda source: source.instrument.quirks.recreate,
            lambda source, how: source.instrument.quirks.set_recreate(how),
        ),
        Entry(
            Value("reads", int, "reads between two resets of the detector; 1: each frame stands for itself"),
            lambda source: source.instrument.reads,
        ),
        _switch(
            "slopes",
            "the camera server sends the slope over nine frames, as ndmr_mode above 2 asks for",
            lambda source: source.instrument.slopes,
            None,
        ),
        _switch(
            "saving",
            "the camera server saves cubes of frames; it ends by itself at simulator.cube_max_mb",
            lambda source: source.instrument.cubes.on,
            lambda source, on: source.instrument.set_saving(on),
        ),
        Entry(
            Value("cubes_saved", int, "cubes of frames that were saved", archive_change=0),
            lambda source: source.instrument.cubes.saved,
        ),
        _truth("opd_rms_nm", "wavefront error behind the mirror", "nm", lambda one: one.opd_rms_nm),
        _truth("strehl", "Strehl ratio behind the mirror", "", lambda one: one.strehl),
        _truth(
            "open_loop_rms_nm", "wavefront error before the mirror", "nm", lambda one: one.open_loop_rms_nm
        ),
        _truth("open_loop_strehl", "Strehl ratio before the mirror", "", lambda one: one.open_loop_strehl),
        _counter("ticks", "frame periods served"),
        _counter("late_ticks", "frame periods that began more than half a period late"),
        _counter("skipped_ticks", "whole frame periods left out because a tick came late"),
        _counter("not_finite", "actuator commands that were no numbers"),
        _counter("write_errors", "writes into a stream that failed"),
        *(entry for beam in BEAMS for entry in _of_beam(beam)),
    )


ENTRIES: Final[dict[str, Entry]] = {entry.value.name: entry for entry in _entries()}
"""Everything that the device publishes, by name."""
