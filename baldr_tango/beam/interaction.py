"""Interaction matrix measured with the loop's own frames, and its quality."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.beam.jobs import JobControl
from baldr_tango.beam.probing import Prober
from baldr_tango.errors import RequestError, StateError
from baldr_tango.names import LoopState

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class InteractionMatrix:
    """Response of frames and signals to shapes of the mirror; M modes, P pixels, A signals, G map points."""

    beam: int
    mask: str
    basis: str
    shapes: FloatArray
    """(M, G) maps of the modes that were poked."""
    poke: float
    """Distance of the two signs [DM units]."""
    signals: FloatArray
    """(M, A) change of the loop's signal [1/DM unit]."""
    pixels: FloatArray
    """(P, M) change of the raw frame [ADU/DM unit]: the legacy matrix."""
    noise: FloatArray | None
    """(M, A) standard error of `signals`, from the scatter of the iterations; None: there was only one."""
    frames_used: int
    frame_rate_hz: float
    gain: float
    utc: str

    def quality(self) -> dict[str, Any]:
        """Return figures of merit: condition number, rank above the noise, noise per element.

        A singular value counts as measured when it is larger than what a matrix of nothing but this noise
        would have: ``sigma (sqrt(M) + sqrt(A))`` (Davidson and Szarek 2001, theorem II.13).
        """
        values = np.linalg.svd(self.signals, compute_uv=False)
        sigma = None if self.noise is None else float(np.sqrt(np.mean(self.noise**2)))
        modes, signals = self.signals.shape
        floor = values[0] * max(modes, signals) * np.finfo(np.float64).eps
        if sigma is not None:
            floor = max(floor, sigma * (math.sqrt(modes) + math.sqrt(signals)))
        rank = int((values > floor).sum())
        return {
            "condition_number": _ratio(values[0], values[-1]),
            "rank": rank,
            "condition_number_of_rank": _ratio(values[0], values[rank - 1]) if rank else None,
            "noise_per_element": sigma,
            "largest_response": float(np.abs(self.signals).max()),
        }


def _ratio(large: float, small: float) -> float | None:
    return float(large / small) if small > 0 else None


def measure_interaction_matrix(
    beam: Beam,
    job: JobControl,
    *,
    basis: str,
    shapes: FloatArray,
    poke: float,
    iterations: int,
    frames: int,
    skip_frames: int,
) -> InteractionMatrix:
    """Poke every shape with both signs and average the loop's frames.

    The pokes are offsets of the open high-order loop, ``+poke/2`` and ``-poke/2`` times the shape, on top of
    the offsets that are there; the order of the signs alternates, which cancels a linear drift. Frames count
    from the third after the one with which the loop took over the poke.

    Parameters
    ----------
    shapes : (M, G) maps
    poke : distance of the two signs [DM units]
    iterations : pairs of pokes of each shape
    frames : usable frames averaged per poke
    skip_frames : further frames to let pass after each poke

    Raises
    ------
    StateError : a loop is closed, or the loop does not run.
    RequestError : a poke exceeds what the loop lets pass.
    BackendError : no frames come.
    """
    with Prober(beam, job) as prober:
        if prober.states != (LoopState.OPEN, LoopState.OPEN):
            raise StateError("the interaction matrix is measured with both loops open")
        p = prober.loop.parameters
        if shapes.shape[1] != p.mode_shapes_lo.shape[0]:
            raise RequestError(
                f"basis {basis}: shapes of {shapes.shape[1]} points,"
                f" the mirror has {p.mode_shapes_lo.shape[0]}"
            )
        for shape in shapes:
            prober.check_range(poke / 2.0 * shape)
        signals = np.zeros((iterations, shapes.shape[0], p.reference.size))
        pixels = np.zeros((p.dark.size, shapes.shape[0]))
        for mode, shape in enumerate(shapes):
            for iteration in range(iterations):
                done = (mode + iteration / iterations) / shapes.shape[0]
                job.progress(done, f"mode {mode + 1} of {shapes.shape[0]}")
                for sign in (1.0, -1.0) if iteration % 2 == 0 else (-1.0, 1.0):
                    prober.move(sign * poke / 2.0 * shape)
                    prober.skip(skip_frames)
                    mean = prober.means(frames, ("signal", "img"))
                    signals[iteration, mode] += sign * mean["signal"] / poke
                    pixels[:, mode] += sign * mean["img"] / (poke * iterations)
        used = prober.frames_used
    noise = signals.std(axis=0, ddof=1) / math.sqrt(iterations) if iterations > 1 else None
    return InteractionMatrix(
        beam=p.beam,
        mask=p.mask,
        basis=basis,
        shapes=shapes,
        poke=poke,
        signals=signals.mean(axis=0),
        pixels=pixels,
        noise=noise,
        frames_used=used,
        frame_rate_hz=p.frame_rate_hz,
        gain=p.gain,
        utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
