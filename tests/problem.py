"""Small wavefront-sensing problems for tests, and the loop's equations in float64 numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import ControllerSettings, LoopParameters
from baldr_tango.configuration.settings import LimitSettings


def gains(n: int, **values: Any) -> ControllerSettings:
    """Controller settings of `n` modes; scalars or vectors."""
    defaults = {"kp": 0.0, "ki": 0.3, "kd": 0.0, "leak": 0.9, "lower": -2.0, "upper": 2.0}
    return ControllerSettings(
        **{
            key: np.broadcast_to(np.asarray(values.get(key, value), float), (n,)).copy()
            for key, value in defaults.items()
        }
    )


def random_problem(
    seed: int = 0, side: int = 8, grid: int = 4, sparse: bool = True, **changes: Any
) -> LoopParameters:
    """A random, well scaled set of loop parameters: side*side pixels, grid*grid actuators, 2 LO modes."""
    rng = np.random.default_rng(seed)
    pixels, actuators = side * side, grid * grid
    interpolation = np.zeros((actuators, pixels))
    for row in interpolation:
        taps = rng.choice(pixels, 4, replace=False) if sparse else np.arange(pixels)
        row[taps] = rng.dirichlet(np.ones(taps.size))
    reference_image = rng.uniform(0.5, 1.5, pixels)
    reference_image /= reference_image.sum()
    high = (
        np.diag(rng.uniform(0.02, 0.05, actuators)) if sparse else rng.normal(0, 0.02, (actuators, actuators))
    )
    high[-1] = 0.0
    parameters = LoopParameters(
        beam=1,
        mask="H3",
        mode="bright",
        config_file="random",
        config_sha256="",
        controller_type_lo="PID",
        controller_type_ho="PID",
        frame_shape=(side, side),
        frame_rate_hz=1000.0,
        gain=1.0,
        dark=rng.uniform(990, 1010, pixels),
        bad_pixels=np.array([], dtype=np.int64),
        bad_pixel_rule="neighbours",
        pixels_to_actuators=interpolation,
        flux_weights=np.ones(pixels),
        reference=interpolation @ reference_image,
        clear_pupil=np.full(actuators, 1.0 / pixels) * rng.uniform(0.8, 1.2, actuators),
        signal_mask=np.ones(actuators, dtype=bool),
        reconstructor_lo=rng.normal(0, 0.02, (2, actuators)),
        reconstructor_ho=high,
        mode_shapes_lo=rng.normal(0, 0.5, (actuators, 2)),
        mode_shapes_ho=np.eye(actuators) if sparse else rng.normal(0, 0.3, (actuators, actuators)),
        exterior_pixels=np.arange(4, dtype=np.int64),
        control_lo=gains(2),
        control_ho=gains(actuators),
        limits=LimitSettings(),
        boxcar=1,
        nm_per_dm_unit=7000.0,
        wavelength_nm=1650.0,
        strehl_line=(1.0, 0.0),
        interaction_matrix=None,
    )
    return replace(parameters, **changes)


def random_frame(
    parameters: LoopParameters, rng: np.random.Generator, flux: float = 60000.0
) -> NDArray[np.int32]:
    """A plausible frame: pedestal, light everywhere, noise."""
    pixels = parameters.dark.size
    light = rng.uniform(0.5, 1.5, pixels)
    frame = parameters.dark + flux * light / light.sum() + rng.normal(0, 3, pixels)
    return np.round(frame).astype(np.int32).reshape(parameters.frame_shape)


class NumpyLoop:
    """The specification's equations in float64, written independently of the kernels.

    baldr rtc steps 3 to 19 with the product's safety rules; one call of `step` per frame.
    """

    def __init__(self, parameters: LoopParameters) -> None:
        self.p = parameters
        self.lo = self.ho = False
        self.history: list[NDArray[np.float64]] = []
        self.lo_state = self._zero(parameters.reconstructor_lo.shape[0])
        self.ho_state = self._zero(parameters.reconstructor_ho.shape[0])
        self.lo_map = np.zeros(parameters.mode_shapes_lo.shape[0])
        self.ho_map = np.zeros_like(self.lo_map)
        self.command = np.zeros_like(self.lo_map)

    @staticmethod
    def _zero(n: int) -> dict[str, NDArray[np.float64]]:
        return {"integral": np.zeros(n), "previous": np.zeros(n)}

    def set_loops(self, lo: bool, ho: bool) -> None:
        """Open or close; a change of either kind starts that controller from zero."""
        if lo != self.lo:
            self.lo_state = self._zero(self.lo_state["integral"].size)
            self.lo_map[:] = 0
        if ho != self.ho:
            self.ho_state = self._zero(self.ho_state["integral"].size)
            self.ho_map[:] = 0
        self.lo, self.ho = lo, ho
        self.command = -(self.lo_map + self.ho_map)

    @staticmethod
    def _control(kind: str, g: ControllerSettings, state: dict[str, NDArray[np.float64]], e: Any) -> Any:
        if kind == "LEAKY":
            state["integral"] = np.clip(g.leak * (state["integral"] + g.ki * e), g.lower, g.upper)
            return state["integral"].copy()
        state["integral"] = np.clip(state["integral"] + g.ki * e, g.lower, g.upper)
        u = np.clip(g.kp * e + state["integral"] + g.kd * (e - state["previous"]), g.lower, g.upper)
        state["previous"] = e.copy()
        return u

    def step(self, frame: NDArray[np.int32]) -> dict[str, Any]:
        """Process one frame; return the telemetry values that the equations define."""
        p = self.p
        r = frame.ravel().astype(float) - p.dark
        if p.bad_pixel_rule == "median" and p.bad_pixels.size:
            r[p.bad_pixels] = np.median(r)
            flux = r.sum()
        else:
            flux = p.flux_weights @ r
        if not flux > p.limits.min_flux_adu:
            self.history.clear()
            return {"flux": flux, "command": self.command.copy(), "skipped": True}
        image_dm = p.pixels_to_actuators @ r / flux
        signal = np.where(
            p.signal_mask, (image_dm - p.reference) / np.where(p.signal_mask, p.clear_pupil, 1), 0
        )
        self.history.append(signal)
        averaged = signal
        b = p.boxcar
        if b > 1 and len(self.history) >= b:
            w = np.arange(b) + 1.0
            averaged = np.tensordot(w, np.array(self.history[-b:]), 1) / w.sum()
        e_lo, e_ho = p.reconstructor_lo @ averaged, p.reconstructor_ho @ averaged
        u_lo, u_ho = np.zeros_like(e_lo), np.zeros_like(e_ho)
        if self.lo:
            u_lo = self._control(p.controller_type_lo, p.control_lo, self.lo_state, e_lo)
        if self.ho:
            u_ho = self._control(p.controller_type_ho, p.control_ho, self.ho_state, e_ho)
        self.lo_map = p.mode_shapes_lo @ u_lo
        self.ho_map = p.mode_shapes_ho @ u_ho
        self.command = -(self.lo_map + self.ho_map)
        return {
            "flux": flux,
            "img_dm": image_dm,
            "signal": signal,
            "e_LO": e_lo,
            "e_HO": e_ho,
            "u_LO": u_lo,
            "u_HO": u_ho,
            "c_LO": self.lo_map.copy(),
            "c_HO": self.ho_map.copy(),
            "command": self.command.copy(),
            "skipped": False,
        }
