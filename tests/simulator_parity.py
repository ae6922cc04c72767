"""A few ticks of the virtual instrument's loop on small frames; as a script it writes what came out.

``python -m tests.simulator_parity FILE DIRECTORY``: under ``NUMBA_DISABLE_JIT=1`` the same equations in plain
Python.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.kernels import plants, simulation
from baldr_tango.kernels.simulation_streams import StreamTable
from baldr_tango.names import N_GRID
from baldr_tango.simulator.linear import no_linear_plant
from baldr_tango.simulator.optical import no_optical_plant, optical_plant
from baldr_tango.streams import CNT0, DATA, SEMAPHORE_CAP, WRITE, Stream

SIDE = 10
TICKS = 10
READS = 4
KEPT = 5


def _linear() -> plants.LinearPlant:
    rng = np.random.default_rng(7)
    pixels, support = SIDE * SIDE, 12
    return plants.LinearPlant(
        reference=rng.uniform(0, 0.02, (1, pixels)).astype(np.float32),
        clear=rng.uniform(0, 0.02, (1, pixels)).astype(np.float32),
        support=rng.choice(pixels, (1, support), replace=False).astype(np.int64),
        response=rng.normal(0, 0.01, (1, N_GRID, support)).astype(np.float32),
        static=rng.normal(0, 0.05, (1, N_GRID)),
        varying=np.zeros((1, 2, N_GRID)),
        varying_rms=np.array([0.02]),
        corner_hz=5.0,
        weights=rng.dirichlet(np.ones(N_GRID), 1),
        nm_per_dm_unit=7000.0,
        wavenumber=2 * np.pi / 1650,
    )


def run(directory: Path, linear: bool, burst: bool) -> dict[str, NDArray[np.float64]]:
    """Serve one beam for some ticks: final frame, truth, combined DM map and counters.

    burst : read without reset, send slopes, keep frames.
    """
    settings = replace(
        SimulatorSettings(), pupil_pixels=6.0, dm_pitch_pixels=0.6, vibration_hz=(40.0,), vibration_nm=(30.0,)
    )
    optical = (
        no_optical_plant()
        if linear
        else optical_plant(settings, (1,), side=SIDE, samples=32, masks=("H3", "H5"))
    )
    rng = np.random.default_rng(5)
    pixels = SIDE * SIDE
    detector = simulation.Detector(
        dark=np.full((1, pixels), 1000.0, dtype=np.float32),
        flux=np.array([30000.0]),
        read_noise=np.array([2.0]),
        electrons_per_adu=1.5,
        normals=rng.standard_normal(5000).astype(np.float32),
        dice=np.array([77], dtype=np.int64),
    )
    read_out = simulation.ReadOut(
        charge=np.zeros((1, pixels), dtype=np.float32),
        place=np.zeros(1, dtype=np.int64),
        window=np.zeros((1, simulation.WINDOW, pixels), dtype=np.int32),
        windowed=np.zeros(1, dtype=np.int64),
        kept=np.zeros((1, KEPT, pixels), dtype=np.int32),
        keeping=np.zeros(1, dtype=np.int64),
    )
    mirror = (12, 12)
    streams = [Stream.create(f"parity{k}", mirror, np.float64, directory) for k in range(6)]
    streams.append(Stream.create("parity6", (SIDE, SIDE), np.int32, directory))
    streams.append(Stream.create("parity7", (len(plants.TRUTH),), np.float64, directory))
    streams[0].write(np.full(mirror, 0.5))
    streams[2].write(rng.normal(0, 0.02, mirror))
    posts = [semaphore.address for semaphore in streams[6].semaphores]
    table = StreamTable(
        descriptors=np.array([[streams[k].fd for k in (5, 6, 7, 0, 1, 2, 3, 4)]], dtype=np.int64),
        triggers=np.array([streams[5].semaphores[1].address], dtype=np.int64),
        posts=np.array([posts], dtype=np.int64),
        cap=SEMAPHORE_CAP,
        data_offset=DATA,
        cnt0_offset=CNT0,
        write_offset=WRITE,
    )
    control = np.zeros(simulation.MASK_IN + 2, dtype=np.int64)
    control[[simulation.RUN, simulation.LAMP, simulation.MIRRORS]] = 1
    control[simulation.MASK_IN] = 1 if linear else 2
    control[simulation.MASK_IN + 1] = 1
    if burst:
        control[[simulation.READS, simulation.SLOPES, simulation.KEEP]] = READS, 1, 1
    control[simulation.PERIOD_NS] = 2_000_000
    counters = np.zeros(simulation.N_COUNTERS, dtype=np.int64)
    command = np.zeros((1, N_GRID))
    truth = np.zeros((1, len(plants.TRUTH)))
    counts = np.zeros((simulation.N_COUNTS, 1, 2), dtype=np.int64)
    opd = np.zeros((1, N_GRID if linear else optical.pixels.size), dtype=np.float32)
    simulation.serve(
        linear, optical, _linear() if linear else no_linear_plant(), detector, read_out, table, 0.5, control,
        np.ones(simulation.N_LEVELS), counters, command, truth, counts, opd, TICKS,
    )  # fmt: skip
    truth[0, plants.LATE_TICKS] = 0.0
    try:
        return {
            "frame": streams[6].read()[0].astype(np.float64),
            "count": np.array([float(streams[6].counter()), float(streams[6].header()["cnt1"])]),
            "posts": np.array([float(semaphore.value()) for semaphore in streams[6].semaphores]),
            "combined": streams[5].read()[0],
            "truth": truth[0],
            "opd": opd[0].astype(np.float64),
            "window": read_out.window[0].astype(np.float64),
            "kept": read_out.kept[0].astype(np.float64),
            "keeping": read_out.keeping.astype(np.float64),
            "ticks": counters[[simulation.TICKS, simulation.WRITE_ERRORS]].astype(np.float64),
        }
    finally:
        for stream in streams:
            stream.close()
            Stream.destroy(stream.name, directory)


def main(output: Path, directory: Path) -> None:
    """Write the results of both plants, and of the optical one read without reset."""
    results = {}
    for kind in ("optical", "linear", "burst"):
        for name, value in run(directory, kind == "linear", kind == "burst").items():
            results[f"{kind}_{name}"] = value
    np.savez(output, **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
