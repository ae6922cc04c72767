"""One scenario for the loop: random frames, gains and state changes. Also a program that saves its result."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.settings import LimitSettings
from tests.harness import LoopBench
from tests.problem import NumpyLoop, gains, random_frame, random_problem

FIELDS = ("flux", "img_dm", "signal", "e_LO", "e_HO", "u_LO", "u_HO", "c_LO", "c_HO", "command")
WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0)
FRAMES = 160


def problem(name: str) -> LoopParameters:
    """One of the scenario's configurations."""
    rng = np.random.default_rng(77)
    actuators = 16
    if name == "pid":
        return random_problem(
            1,
            limits=WIDE,
            control_lo=gains(2, kp=rng.uniform(0, 0.3, 2), ki=rng.uniform(0, 0.3, 2), kd=0.1),
            control_ho=gains(actuators, kp=rng.uniform(0, 0.3, actuators), ki=rng.uniform(0, 0.3, actuators)),
        )
    if name == "leaky":
        return random_problem(
            2,
            limits=WIDE,
            controller_type_lo="LEAKY",
            controller_type_ho="LEAKY",
            control_ho=gains(actuators, leak=rng.uniform(0.8, 0.99, actuators)),
        )
    if name == "dense and boxcar":
        return random_problem(3, sparse=False, boxcar=5, limits=WIDE)
    if name == "bad pixels by median":
        return random_problem(4, bad_pixels=np.array([3, 17, 40]), bad_pixel_rule="median", limits=WIDE)
    if name == "dark actuator and weighted flux":
        mask = np.ones(actuators, dtype=bool)
        mask[2] = False
        weights = np.ones(64)
        weights[[5, 6]] = [0.0, 1.5]
        return random_problem(5, signal_mask=mask, flux_weights=weights, limits=WIDE)
    raise ValueError(name)


NAMES = ("pid", "leaky", "dense and boxcar", "bad pixels by median", "dark actuator and weighted flux")


def run_scenario(name: str, reference: NumpyLoop | None = None) -> list[dict[str, NDArray[Any]]]:
    """Step the real loop, and the numpy one if given, through the same frames; return telemetry per frame."""
    parameters = problem(name)
    frames, states = np.random.default_rng(8), np.random.default_rng(9)
    trace = []
    with LoopBench(parameters) as bench:
        for number in range(FRAMES):
            if number % 20 == 10:
                lo, ho = bool(states.integers(2)), bool(states.integers(2))
                bench.set_loops(lo, ho)
                if reference:
                    reference.set_loops(lo, ho)
            flux = 10.0 if number == 55 else frames.uniform(2e4, 9e4)
            frame = random_frame(parameters, frames, flux)
            channel = bench.step(frame)
            record = {field: np.array(bench.newest(field), dtype=np.float64) for field in FIELDS}
            record["channel"] = channel
            if reference:
                record["expected"] = reference.step(frame)  # type: ignore[assignment]
            trace.append(record)
    return trace


if __name__ == "__main__":
    scenario, target = sys.argv[1:]
    result = run_scenario(scenario)
    np.savez(target, **{field: np.array([r[field] for r in result]) for field in (*FIELDS, "channel")})
