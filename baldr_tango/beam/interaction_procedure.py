"""What an operator does with interaction matrices: measure, look at, invert, put in force, keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from baldr_tango.bases import find_basis
from baldr_tango.beam.interaction import InteractionMatrix, measure_interaction_matrix
from baldr_tango.beam.interaction_files import (
    chosen_path,
    read_interaction_matrix,
    write_interaction_matrix,
)
from baldr_tango.beam.jobs import Job, JobControl
from baldr_tango.calibration.reconstruction import Reconstructors, compute_reconstructors
from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.errors import RequestError, StateError
from baldr_tango.names import ACTUATOR_INDEX, RtcState

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

APPLY_TIMEOUT_S: Final = 1.0
"""Longest wait for the loop to take over reconstructors [s]."""


class Interaction:
    """Interaction matrices of a beam; all methods may be called from any thread."""

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self.newest: InteractionMatrix | None = None
        """The matrix measured last."""

    def start_measurement(self, *, basis: str, modes: int | None, space: str, path: str, **how: Any) -> Job:
        """Start the measurement as a job, whose result is the command's reply.

        Parameters
        ----------
        modes : how many modes of the basis; None: all
        space : "dm" or "pix": what the figures of merit are of
        path : see `chosen_path`
        how : see `measure_interaction_matrix`

        Raises
        ------
        RequestError : there is no such basis, or the path cannot be used.
        StateError : another job is running.
        """
        found = find_basis(basis, self._beam.bases)
        if modes is not None and modes > found.n_modes:
            raise RequestError(f"basis {basis}: {found.n_modes} modes, {modes} are asked for")
        shapes = np.array(found.modes[:modes])
        file = chosen_path(
            path, self._beam.saving.directory, f"interaction_matrix_beam{self._beam.settings.beam}"
        )

        def task(job: JobControl) -> dict[str, Any]:
            matrix = measure_interaction_matrix(self._beam, job, basis=found.name, shapes=shapes, **how)
            write_interaction_matrix(file, matrix)
            self.newest = matrix
            shown = matrix if space == "dm" else replace(matrix, signals=matrix.pixels.T, noise=None)
            return {
                "status": "interaction matrix construction complete",
                "ok": True,
                "path": str(file),
                "basis": matrix.basis,
                "modes": int(matrix.shapes.shape[0]),
                "poke": matrix.poke,
                "space": space,
                "frames_used": matrix.frames_used,
                **shown.quality(),
            }

        return self._beam.jobs.start("build_interaction_matrix", task)

    def reconstruct(
        self, method: str, *, source: Path | None = None, apply: bool = False, save: bool = False, **how: Any
    ) -> dict[str, Any]:
        """Compute reconstructors of both loops from a matrix of single actuators.

        The shapes of the modes stay those of the calibration in force.

        Parameters
        ----------
        source : file of a measured matrix; None: the one measured last
        apply : put them in force, at one frame boundary
        save : write a calibration file with them, as `References.save`
        how : see `compute_reconstructors`

        Raises
        ------
        StateError : nothing was measured, or a loop is closed and they are to be put in force.
        RequestError : the matrix is not of single actuators, or an option is wrong.
        BackendError : the actuators in the pupil do not respond.
        """
        with self._beam.exclusive:
            loop, calibration = self._beam.loop, self._beam.calibration
            if loop is None or calibration is None:
                raise StateError("no configuration is loaded; load one first: readBDRConfig")
            matrix = self.newest if source is None else read_interaction_matrix(source)
            if matrix is None:
                raise StateError("no interaction matrix was measured; build_interaction_matrix measures one")
            p = loop.parameters
            if matrix.basis != "zonal" or matrix.signals.shape != p.reconstructor_ho.shape:
                raise RequestError(
                    f"interaction matrix of basis {matrix.basis}, {matrix.signals.shape}: reconstructors need"
                    f" a zonal one, {p.reconstructor_ho.shape}"
                )
            new = compute_reconstructors(
                matrix.signals,
                p.mode_shapes_lo[ACTUATOR_INDEX],
                calibration.I2A @ calibration.pupil,
                method,
                **how,
            )
            reply = {
                "ok": True,
                "method": new.method,
                "controlled": new.controlled,
                "kept": new.kept,
                "rms_change_lo": _rms(new.low - p.reconstructor_lo),
                "rms_change_ho": _rms(new.high - p.reconstructor_ho),
                "applied": apply,
                "path": "",
            }
            if apply:
                self._apply(new)
            if save:
                reply["path"] = self._save(new, matrix, calibration)
        return reply

    def _apply(self, new: Reconstructors) -> None:
        loop, state = self._beam.loop, self._beam.state()
        if loop is None or state.lo or state.ho:
            raise StateError("reconstructors are put in force with both loops open")
        version = loop.update(
            replace(
                loop.parameters,
                reconstructor_lo=new.low,
                reconstructor_ho=new.high,
                interaction_matrix=new.matrix,
            ),
            APPLY_TIMEOUT_S,
        )
        if state.rtc != RtcState.STOPPED and not loop.wait_adopted(version, APPLY_TIMEOUT_S):
            raise StateError(f"the real-time loop did not react within {APPLY_TIMEOUT_S:g} s")
        self._beam.log.info("new reconstructors: %s, %d actuators", new.method, new.controlled)

    def _save(self, new: Reconstructors, matrix: InteractionMatrix, calibration: Calibration) -> str:
        changes = {
            "I2M_LO": new.low,
            "I2M_HO": new.high,
            "IM": new.matrix,
            "inverse_method_LO": "pinv",
            "inverse_method_HO": new.method,
            "poke_amp": matrix.poke,
            "build_method": "double-sided-poke",
        }
        note = f"reconstructors {new.method} of the interaction matrix measured {matrix.utc}"
        saved = self._beam.references.save(changes=changes, note=note)
        return str(saved["path"])


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
