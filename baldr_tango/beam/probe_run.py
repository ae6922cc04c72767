"""A sequence of known shapes on the mirror, and the telemetry of the frames that show each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases import Basis, find_basis
from baldr_tango.beam.interaction_files import chosen_path, write_whole
from baldr_tango.beam.jobs import Job, JobControl, JobResult
from baldr_tango.beam.probe_methods import Aberration
from baldr_tango.beam.probing import Prober
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import CORNERS, N_GRID, LoopState
from baldr_tango.telemetry import legacy
from baldr_tango.telemetry.fits_file import astropy_fits
from baldr_tango.telemetry.legacy import LegacyColumn

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

OPEN: Final = "OL"
CLOSED: Final = "CL"

CLOSED_SETTLE_S: Final = 0.5
"""Time that a closed loop gets to reach a new set point when the request does not say [s]."""

MOST_NBYTES: Final = 1 << 30
"""Largest amount of telemetry that a sequence may collect [bytes]."""

ALL_FIELDS: Final = ("timestamp", *(column.key for column in legacy.COLUMNS[1:]))
"""What "all" stands for: the fields of the legacy table."""


@dataclass(frozen=True)
class ProbePlan:
    """A sequence, checked."""

    aberrations: tuple[Aberration, ...]
    basis: str
    shapes: NDArray[np.float64]
    """(n_probes, G) maps."""
    state: str
    """OL: offsets of the open high-order loop; CL: set points of the closed one."""
    fields: tuple[LegacyColumn, ...]
    samples: int
    """Frames per probe."""
    dead_time_ms: float = -1.0
    """Time let pass before frames count [ms]; below 0: two frames with an open, 0.5 s with a closed loop."""
    is_single: bool = True
    """One field, whose samples go into the reply."""
    fields_text: str = ""
    method: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the fields as they were asked for."""
        return [column.key for column in self.fields]


@dataclass(frozen=True, eq=False)
class Probed:
    """What a sequence has collected."""

    plan: ProbePlan
    samples: dict[str, NDArray[Any]]
    """(n_probes, N, ...) by name of the field, in legacy units."""
    boxcar: int
    frame_rate_hz: float
    gain: float
    utc: str


def probe_plan(
    aberrations: Sequence[Aberration],
    basis: str,
    state: str,
    fields: Sequence[str] | None,
    samples: int,
    dead_time_ms: float = -1.0,
    method: str = "",
    bases: Mapping[str, Basis] | None = None,
) -> ProbePlan:
    """Check a sequence.

    Parameters
    ----------
    bases : loaded from a file, which go before the generated ones
    fields : telemetry fields; None, or "all" as the only one: those of the legacy table

    Raises
    ------
    RequestError : something is not there, or not possible.
    """
    if state not in (OPEN, CLOSED):
        raise RequestError("Invalid state (use 'OL' or 'CL')", state=state)
    found = find_basis(basis, bases or {})
    maps = []
    for index, amplitude in aberrations:
        if not 0 <= index < found.n_modes:
            raise RequestError("index out of range", index=index, n_modes=found.n_modes)
        maps.append(amplitude * found.modes[index])
    is_all = fields is None or list(fields) == ["all"]
    wanted = ALL_FIELDS if fields is None or is_all else tuple(fields)
    columns = []
    for name in wanted:
        column = legacy.find(name)
        if column is None:
            known = [*legacy.names(vectors=True), *legacy.names(vectors=False)]
            raise RequestError("unknown field", field=name, known=known)
        columns.append(LegacyColumn(name, column.field, column.code, column.unit, column.divisor))
    return ProbePlan(
        aberrations=tuple((int(index), float(amplitude)) for index, amplitude in aberrations),
        basis=found.name,
        shapes=np.array(maps).reshape(len(maps), N_GRID),
        state=state,
        fields=tuple(columns),
        samples=samples,
        dead_time_ms=dead_time_ms,
        is_single=not is_all and len(columns) == 1,
        fields_text="all" if is_all else ",".join(wanted),
        method=method,
    )


def start_probing(beam: Beam, plan: ProbePlan, path: str | None, name: str) -> Job:
    """Start a sequence as a job, whose result is the command's reply.

    Parameters
    ----------
    path : file or directory of the FITS file; empty: a dated one in the telemetry directory; None: none
    name : of the command

    Raises
    ------
    RequestError : the path cannot be used, or the sequence would collect too much.
    StateError : another job is running, or FITS files cannot be written.
    """
    _check_size(beam, plan)
    stem = (
        f"probe_{plan.method}_beam{beam.settings.beam}" if plan.method else f"probe_beam{beam.settings.beam}"
    )
    file = None if path is None else chosen_path(path, beam.saving.directory, stem, (".fits",))

    def task(job: JobControl) -> JobResult:
        probed = probe(beam, job, plan)
        if file is not None:
            write_probed(file, probed)
        return reply_of(probed, file)

    return beam.jobs.start(name, task)


def _check_size(beam: Beam, plan: ProbePlan) -> None:
    loop = beam.loop
    if loop is None:
        raise StateError("no configuration is loaded; load one first: readBDRConfig")
    ring = loop.arrays.ring
    per_frame = sum(ring.fields[column.field][0].nbytes for column in plan.fields)
    needed = per_frame * plan.samples * len(plan.aberrations)
    if needed > MOST_NBYTES:
        raise RequestError(
            f"{len(plan.aberrations)} probes of {plan.samples} frames take {needed / 1e6:.0f} MB,"
            f" allowed are {MOST_NBYTES / 1e6:.0f} MB"
        )


def probe(beam: Beam, job: JobControl, plan: ProbePlan) -> Probed:
    """Go through a sequence; afterwards offsets and set points are as they were.

    Open: the shape takes the place of the high-order offsets. Closed: it becomes the set point of the
    high-order loop, which steers to it. Samples are frames taken after that, by their numbers.

    Raises
    ------
    StateError : the high-order loop is not in the state asked for, or changes meanwhile.
    RequestError : a shape exceeds what the loop lets pass.
    BackendError : no frames come.
    """
    with Prober(beam, job) as prober:
        is_closed = prober.states[1] == LoopState.CLOSED
        if is_closed != (plan.state == CLOSED):
            wanted = "closed" if plan.state == CLOSED else "open"
            raise StateError(f"probing in state {plan.state} needs the high-order loop {wanted}")
        p = prober.loop.parameters
        modes = p.reconstructor_ho.shape[0]
        grid = p.mode_shapes_lo.shape[0]
        if grid != N_GRID or (is_closed and modes != N_GRID - len(CORNERS)):
            raise RequestError(
                f"probing needs a mirror of 12x12 actuators and zonal modes, found {modes} modes"
            )
        pause_s = CLOSED_SETTLE_S if is_closed else 0.0
        if plan.dead_time_ms >= 0:
            pause_s = plan.dead_time_ms / 1000.0
        for shape in plan.shapes if not is_closed else ():
            prober.check_range(shape)
        collected: dict[str, list[NDArray[Any]]] = {column.key: [] for column in plan.fields}
        names = sorted({column.field for column in plan.fields})
        for number, ((index, amplitude), shape) in enumerate(zip(plan.aberrations, plan.shapes, strict=True)):
            job.progress(number / len(plan.aberrations), f"mode {index}, {amplitude:+g}")
            if is_closed:
                prober.aim(np.delete(shape, CORNERS))
            else:
                prober.move(shape, on_top=False)
            prober.skip(round(pause_s * p.frame_rate_hz))
            frames = prober.samples(plan.samples, names)
            for column in plan.fields:
                collected[column.key].append(column.values(frames[column.field]))
        return Probed(
            plan=plan,
            samples={name: np.array(values) for name, values in collected.items()},
            boxcar=prober.loop.slots.switch(d.BOXCAR),
            frame_rate_hz=p.frame_rate_hz,
            gain=p.gain,
            utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


def reply_of(probed: Probed, file: Path | None) -> JobResult:
    """Return the reply of ``probe_interaction_data``, or of ``run_probe_method`` for a named sequence."""
    plan = probed.plan
    reply: JobResult = {
        "ok": True,
        "N": plan.samples,
        "basis": plan.basis,
        "state": plan.state,
        "n_probes": len(plan.aberrations),
        "mode": "single-field" if plan.is_single else "multi-field",
    }
    reply |= {"field": plan.names[0]} if plan.is_single else {"fields": plan.names}
    if plan.method:
        return {**reply, "method": plan.method, "path": str(file or "")}
    probes: list[dict[str, Any]] = [
        {"index": index, "amplitude": amplitude} for index, amplitude in plan.aberrations
    ]
    if plan.is_single:
        for entry, samples in zip(probes, probed.samples[plan.names[0]], strict=True):
            rows = samples.reshape(plan.samples, -1)
            entry["samples"] = [legacy.plain(row) for row in rows]
    reply |= {"deadtime_ms": plan.dead_time_ms, "probes": probes}
    return {**reply, "outfile": str(file)} if file is not None else reply


def write_probed(path: Path, probed: Probed) -> None:
    """Write what was collected as FITS, in the legacy layout.

    One field: the table ``PROBES``, one row per probe: IDX, AMP, VLEN, NSAMP and DATA, sample after sample.
    Several: one float64 image per field, all probes one after the other, numpy shape (NSTEP, NCOLS) with the
    numbers column after column as ever: ``data.reshape(NCOLS, NSTEP).T`` brings them in order. The table
    ``PROBES`` tells which rows belong to which probe.

    Raises
    ------
    BackendError : it cannot be written.
    """
    writer = _single if probed.plan.is_single else _multi
    write_whole(path, lambda temporary: writer(probed).writeto(temporary))


def _header(fits: Any, probed: Probed) -> Any:
    plan = probed.plan
    header = fits.Header()
    header["BASIS"] = (plan.basis, "DM basis")
    header["STATE"] = (plan.state, "OL offsets, CL set points")
    header["N"] = (plan.samples, "frames per probe")
    header["DEADTIME"] = (plan.dead_time_ms, "[ms] let pass after each change, -1 by itself")
    header["NPROBES"] = (len(plan.aberrations), "probes")
    header["NBOXCAR"] = (probed.boxcar, "frames in the mean of the signal")
    header["GAINRAW"] = (probed.gain, "camera gain")
    header["FPSRAW"] = (probed.frame_rate_hz, "[Hz] camera frame rate")
    header["USEDCAP"] = (plan.samples, "frames of each probe that are used")
    header["METHOD"] = (plan.method, "named sequence")
    header["DATE"] = (probed.utc, "UTC")
    return header


def _single(probed: Probed) -> Any:
    fits = astropy_fits()
    plan = probed.plan
    data = probed.samples[plan.names[0]].astype(np.float64).reshape(len(plan.aberrations), -1)
    length = data.shape[1] // plan.samples
    header = _header(fits, probed)
    header["FIELD"] = (plan.names[0], "telemetry field")
    columns = [
        *_identity(fits, plan),
        fits.Column("VLEN", "1J", array=np.full(len(data), length)),
        fits.Column("NSAMP", "1J", array=np.full(len(data), plan.samples)),
        fits.Column("DATA", f"{data.shape[1]}D", array=data),
    ]
    table = fits.BinTableHDU.from_columns(columns, header=header, name="PROBES")
    return fits.HDUList([fits.PrimaryHDU(), table])


def _multi(probed: Probed) -> Any:
    fits = astropy_fits()
    plan = probed.plan
    header = _header(fits, probed)
    header["FIELDS"] = (plan.fields_text, "telemetry fields")
    units = [fits.PrimaryHDU(header=header)]
    steps = len(plan.aberrations) * plan.samples
    for name, samples in probed.samples.items():
        rows = samples.astype(np.float64).reshape(steps, -1)
        image = fits.ImageHDU(rows.ravel(order="F").reshape(rows.shape), name=name)
        image.header["NSTEP"] = (steps, "frames, all probes")
        image.header["NCOLS"] = (rows.shape[1], "values per frame")
        image.header["ORDER"] = ("column", "numbers column after column")
        units.append(image)
    first = np.arange(len(plan.aberrations)) * plan.samples
    columns = [*_identity(fits, plan), fits.Column("FIRST", "1J", array=first)]
    units.append(fits.BinTableHDU.from_columns(columns, name="PROBES"))
    return fits.HDUList(units)


def _identity(fits: Any, plan: ProbePlan) -> list[Any]:
    return [
        fits.Column("IDX", "1J", array=np.array([index for index, _ in plan.aberrations])),
        fits.Column("AMP", "1D", array=np.array([amplitude for _, amplitude in plan.aberrations])),
    ]
