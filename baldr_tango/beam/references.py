"""Dark and references of a beam, measured with the loop's own frames: in force at once, saved on request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.beam.frames import LEAST_FRAMES, Frames, choose_frames, mean_light, mean_raw
from baldr_tango.configuration.calibration import write_calibration
from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.derived import LoopParameters, derive, lit_signals
from baldr_tango.configuration.photometry import bad_pixels_of, photometry_of
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

FloatArray = NDArray[np.float64]

APPLY_TIMEOUT_S: Final = 0.5
"""Longest wait for the loop to take over new references [s]."""

MASK_SETTLE_S: Final = 0.2
"""Time after the phase mask has come to rest whose frames are not used: stage and exposure settle [s]."""

LUCKY_PERCENTILES: Final = (50.0, 99.9)
"""Percentiles are clamped to this range, as ever."""

INNER: Final = 0.7
"""Share of pixels of the inner pupil from which on an actuator belongs to it."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What has been measured since the calibration was loaded; None: as the file has it."""

    reference: FloatArray | None = None
    """(P,) intensity with the phase mask, per unit flux."""
    reference_flux: float = 0.0
    """[ADU]"""
    clear: FloatArray | None = None
    """(P,) clear pupil [ADU]."""
    notes: tuple[str, ...] = ()
    """What was measured when and how."""


class References:
    """Measures, applies, saves and forgets dark and references.

    All are kept in pixel space, as the calibration file has them, and brought to the actuators by the same
    matrix as the frames, so ``I0_update`` gives exactly the mean of the loop's ``img_dm``.

    What follows from what: the dark enters every later frame, its flux, its signal and ``rmse_est``, and with
    them what is measured from then on. References in force were divided by their own flux with the dark of
    their time; a new dark leaves them as they are, so measure the dark first. I0 and N0 do not depend on each
    other. The signal follows all three from the next frame on; reconstructors do not.

    All methods may be called from any thread.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._calibration: Calibration | None = None
        self._measured = Measured()

    def update_dark(self, frames: int | None = None) -> dict[str, Any]:
        """Take the mean raw frame for the dark; no light may reach the camera.

        Raises
        ------
        StateError : there are too few frames since the light went out, or the loop did not react.
        RequestError : the number of frames is out of range.
        """
        with self._beam.exclusive:
            loop = self._ready()
            p = loop.parameters
            chosen = choose_frames(loop.arrays.ring, frames, dark=True)
            dark = mean_raw(chosen)
            self._apply(loop, replace(p, dark=dark))
            self._note(f"dark from {chosen.count} frames")
            old, new = float(p.flux_weights @ (dark - p.dark)), 0.0
        return self._reply("dark", chosen.count, p.dark, dark, old, new)

    def update_reference(self, frames: int | None = None, percentile: float | None = None) -> dict[str, Any]:
        """Take the mean of the normalised frames for I0; the phase mask must be in.

        Parameters
        ----------
        percentile : use only the frames whose ``rmse_est``, the light outside the pupil, is at least at this
            percentile, clamped to `LUCKY_PERCENTILES`; None: all.

        Raises
        ------
        StateError : there are too few frames since the mask stands, it moves or may move, or the loop did not
            react.
        RequestError : the number of frames is out of range.
        """
        with self._beam.exclusive:
            loop = self._ready()
            p = loop.parameters
            chosen = choose_frames(loop.arrays.ring, frames, after_ns=self._mask_settled_ns())
            extra: dict[str, Any] = {"frames_seen": chosen.count}
            if percentile is not None:
                percentile = float(np.clip(percentile, *LUCKY_PERCENTILES))
                chosen, threshold = lucky(chosen, percentile)
                extra |= {"percentile": percentile, "threshold": threshold}
            light = mean_light(chosen, p, loop.slots.switch(d.BURST))
            before = self._flux()
            self._apply(loop, replace(p, reference=p.pixels_to_actuators @ light.normalised))
            self._measured = replace(self._measured, reference=light.normalised, reference_flux=light.flux)
            self._beam.live.remember("reference", I0=light.normalised)
            self._note(f"I0 from {light.frames} frames" + ("" if percentile is None else ", lucky"))
            reply = self._reply(
                "I0", light.frames, p.reference, loop.parameters.reference, before, light.flux
            )
        return reply | extra

    def update_clear_pupil(self, frames: int | None = None, constant: bool = False) -> dict[str, Any]:
        """Take the mean of the frames for N0; the phase mask must be out.

        The map keeps the pixels of the inner pupil and has their mean elsewhere, as a calibration makes it;
        `constant` has one value everywhere instead, the mean over the actuators of the inner pupil.

        Raises
        ------
        StateError : there are too few frames since the mask stands, it moves or may move, or the loop did not
            react.
        RequestError : the number of frames is out of range.
        """
        with self._beam.exclusive:
            loop = self._ready()
            p = loop.parameters
            calibration = self._of_the_file()
            chosen = choose_frames(loop.arrays.ring, frames, after_ns=self._mask_settled_ns())
            light = mean_light(chosen, p, loop.slots.switch(d.BURST))
            divisor = constant_divisor(light.normalised, calibration) if constant else None
            if divisor is None:
                divisor = cleaned_divisor(light.image, calibration, p) / light.flux
            clear = p.pixels_to_actuators @ divisor
            before = self._clear_flux()
            self._apply(loop, replace(p, clear_pupil=clear, signal_mask=lit_signals(clear)))
            self._measured = replace(self._measured, clear=light.image)
            self._beam.live.remember("clear_pupil", "signal_mask", N0=light.image, norm_pupil=divisor)
            self._note(f"N0 from {light.frames} frames" + (", constant" if constant else ""))
        reply = self._reply("N0", light.frames, p.clear_pupil, clear, before, light.flux)
        return {**reply, "constant": constant}

    def undo(self) -> dict[str, Any]:
        """Put dark and references of the calibration file in force again.

        Raises
        ------
        StateError : no configuration is loaded, or the loop did not react.
        """
        with self._beam.exclusive:
            loop = self._ready()
            p = loop.parameters
            calibration = self._of_the_file()
            images = {name: getattr(calibration, name) for name in ("I0", "N0", "norm_pupil")}
            fresh = derive(
                replace(self._beam.live.calibration, **images),
                self._beam.settings,
                frame_rate_hz=p.frame_rate_hz,
                gain=p.gain,
            )
            names = ("dark", "reference", "clear_pupil", "signal_mask")
            changed = [name for name in names if not np.array_equal(getattr(p, name), getattr(fresh, name))]
            self._apply(loop, replace(p, **{name: getattr(fresh, name) for name in names}))
            self._measured = Measured()
            self._beam.live.remember("reference", "clear_pupil", "signal_mask", **images)
        self._beam.log.info("dark and references as in %s again", calibration.file)
        return {"ok": True, "file": str(calibration.file), "changed": changed}

    def save(
        self, path: str = "", *, changes: Mapping[str, Any] | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Write a calibration file with what is in force: the loaded one with new dark, I0, N0, norm_pupil.

        Runtime fields of the calibration that clients have set are saved too.

        Parameters
        ----------
        path : file ending in .toml, or directory; empty: a dated file beside the calibration file. No file is
            ever overwritten.
        changes : further keys of the calibration that are new.
        note : line for the head of the file.

        Raises
        ------
        RequestError : the file exists, or its name does not fit.
        StateError : a reference in force has no image in pixel space, because it was set at the actuators.
        BackendError : it cannot be written.
        """
        with self._beam.exclusive:
            loop = self._ready()
            p = loop.parameters
            calibration = self._of_the_file()
            content = replace(self._content(loop, self._beam.live.calibration), **(changes or {}))
            file = self._free_path(path, calibration, p)
            notes = [*self._measured.notes, *([note] if note else [])]
            write_calibration(
                file,
                content,
                p.beam,
                p.mask,
                comment="\n".join((f"References saved from {calibration.file}", *notes)),
            )
        self._beam.log.info("references saved: %s", file)
        return {"ok": True, "path": str(file), "mask": p.mask, "measured": list(self._measured.notes)}

    def _content(self, loop: RealTimeLoop, calibration: Calibration) -> Calibration:
        p, measured, settings = loop.parameters, self._measured, self._beam.settings
        light = photometry_of(
            calibration, settings.loop, bad_pixels_of(calibration, []), p.frame_rate_hz, p.gain, []
        )
        reference, divisor = light.reference_image, light.clear_image
        for name, image, in_force in (
            ("I0", reference, p.reference),
            ("N0", divisor, p.clear_pupil),
        ):
            if not np.allclose(p.pixels_to_actuators @ image, in_force, rtol=1e-5, atol=1e-9):
                raise StateError(f"{name} in force was set at the actuators: there is no image of it to save")
        flux = measured.reference_flux if measured.reference is not None else calibration.intrn_flx_I0
        return replace(
            calibration,
            bias=np.zeros_like(calibration.bias),
            dark=loop.slots.current("dark").astype(np.float64),
            I0=reference,
            norm_pupil=divisor,
            intrn_flx_I0=float(flux),
            camera_config={
                **calibration.camera_config,
                "fps": f"{p.frame_rate_hz:.6g}",
                "gain": f"{p.gain:.6g}",
            },
        )

    @staticmethod
    def _free_path(text: str, calibration: Calibration, p: LoopParameters) -> Path:
        path = Path(text).expanduser() if text.strip() else calibration.file.parent
        if text.strip() and not path.is_absolute():
            raise RequestError(f"path {text!r}: expected an absolute path")
        if path.suffix and not path.is_dir():
            if path.suffix != ".toml":
                raise RequestError(f"{path}: expected a name that ends in .toml")
            if path.exists():
                raise RequestError(f"{path}: exists already; calibrations are never overwritten")
            return path
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
        stem = f"baldr_config_{p.beam}_{p.mode}_{now}"
        file, number = path / f"{stem}.toml", 1
        while file.exists():
            number += 1
            file = path / f"{stem}_{number}.toml"
        return file

    def _ready(self) -> RealTimeLoop:
        """Return the loop; what was measured belongs to the calibration it was loaded with."""
        loop, calibration = self._beam.loop, self._beam.calibration
        if loop is None or calibration is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        if calibration is not self._calibration:
            self._calibration, self._measured = calibration, Measured()
        return loop

    def _of_the_file(self) -> Calibration:
        assert self._calibration is not None
        return self._calibration

    def _mask_settled_ns(self) -> int | None:
        """Return from when on frames show the phase mask where it is [CLOCK_MONOTONIC, ns]; None: all do."""
        mask = self._beam.mask
        if mask.may_move:
            raise StateError("the phase mask is moving, or may be; wait until it stands")
        since_s = mask.at_rest_since_s
        return round(1e9 * (since_s + MASK_SETTLE_S)) if math.isfinite(since_s) else None

    def _apply(self, loop: RealTimeLoop, parameters: LoopParameters) -> None:
        version = loop.update(parameters, APPLY_TIMEOUT_S)
        if not loop.wait_adopted(version, APPLY_TIMEOUT_S):
            raise StateError(f"the real-time loop did not react within {APPLY_TIMEOUT_S:g} s")

    def _flux(self) -> float:
        known = self._measured.reference_flux
        return known if known > 0 else float(self._of_the_file().intrn_flx_I0)

    def _clear_flux(self) -> float:
        clear = self._measured.clear
        return float(np.sum(self._of_the_file().N0 if clear is None else clear))

    def _note(self, text: str) -> None:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._measured = replace(self._measured, notes=(*self._measured.notes, f"{now}: {text}"))
        self._beam.log.info("new %s", text)

    @staticmethod
    def _reply(
        what: str, frames: int, old: FloatArray, new: FloatArray, flux_before: float, flux: float
    ) -> dict[str, Any]:
        return {
            "ok": True,
            "updated": what,
            "frames": frames,
            "rms_change": float(np.sqrt(np.mean((new - old) ** 2))),
            "mean_before": float(old.mean()),
            "mean": float(new.mean()),
            "flux_before": flux_before,
            "flux": flux,
        }


def lucky(frames: Frames, percentile: float) -> tuple[Frames, float]:
    """Keep the frames with the most light outside the pupil, where the dot of the mask diffracts it.

    The threshold is the value of rank ``ceil(percentile/100 * (n-1))`` of ``rmse_est``, as the legacy has it.

    Returns
    -------
    the frames, and the threshold [ADU].

    Raises
    ------
    StateError : there is no such light to choose by.
    """
    light = frames.field("rmse_est").astype(np.float64)
    if light.size < LEAST_FRAMES or not np.isfinite(light).all():
        raise StateError("rmse_est is not known: the calibration names no exterior pixel that is good")
    threshold = float(np.sort(light)[int(np.ceil(percentile / 100.0 * (light.size - 1)))])
    used = np.zeros_like(frames.used)
    used[np.flatnonzero(frames.used)[light >= threshold]] = True
    return frames.only(used), threshold


def cleaned_divisor(clear: FloatArray, calibration: Calibration, p: LoopParameters) -> FloatArray:
    """Return the clear pupil (P,) [ADU] with the mean of the inner pupil outside of it."""
    inner = calibration.inner_pupil_filt > 0
    good = inner.copy()
    good[p.bad_pixels] = False
    if not good.any():
        return clear
    return np.asarray(np.where(inner, clear, clear[good].mean()))


def constant_divisor(normalised: FloatArray, calibration: Calibration) -> FloatArray:
    """Return one value for all pixels (P,): the mean over the actuators of the inner pupil (the legacy N0).

    Raises
    ------
    StateError : no actuator lies in the inner pupil.
    """
    inner = calibration.I2A @ calibration.inner_pupil_filt > INNER
    if not inner.any():
        raise StateError("no actuator lies in the inner pupil of the calibration (inner_pupil_filt)")
    return np.full(normalised.size, float((calibration.I2A @ normalised)[inner].mean()))
