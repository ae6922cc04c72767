"""Judge a calibration: is it sound, and will the loops be stable with the configured gains?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, get_args

from baldr_tango.calibration import quality
from baldr_tango.calibration.prediction import DELAYS, Loops, Prediction, loop_model
from baldr_tango.configuration.calibration import Calibration
from baldr_tango.configuration.derived import LoopParameters


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration is worth."""

    beam: int
    mask: str
    config_file: str
    config_sha256: str
    conditions: quality.Conditions
    actuators: quality.Actuators
    bad_pixels: quality.BadPixels
    references: quality.References
    low_order: tuple[quality.LowOrderMatch, ...]
    stability: tuple[Prediction, ...]
    """For each combination of loops and each delay; empty without a usable interaction matrix."""
    warnings: tuple[str, ...]
    """What deserves to be looked at, one sentence each."""

    def weakest(self, loops: Loops = "LO+HO") -> Prediction | None:
        """Prediction with the smallest gain margin for some closed loops; None when there is none."""
        found = [prediction for prediction in self.stability if prediction.loops == loops]
        return min(found, key=lambda prediction: prediction.gain_margin, default=None)

    @property
    def predicted_stable(self) -> bool | None:
        """Both loops closed; None when it cannot be told."""
        weakest = self.weakest()
        return None if weakest is None else weakest.is_stable

    @property
    def gain_margin(self) -> float | None:
        """Both loops closed; None when it cannot be told."""
        weakest = self.weakest()
        return None if weakest is None else weakest.gain_margin

    @property
    def worst_mode(self) -> str:
        """Mode that would oscillate or drift first, both loops closed; or empty."""
        weakest = self.weakest()
        return "" if weakest is None else weakest.weakest_mode

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; what is not finite becomes None."""
        content = _plain(asdict(self))
        content["predicted_stable"] = self.predicted_stable
        content["gain_margin"] = self.gain_margin
        content["worst_mode"] = self.worst_mode
        return content


def judge(calibration: Calibration, parameters: LoopParameters) -> CalibrationReport:
    """Judge a calibration with the gains it will be used with.

    Parameters
    ----------
    parameters : derived from the calibration and the settings of the beam, or those in force.
    """
    conditions = quality.conditions(parameters)
    actuators = quality.actuators(calibration, parameters)
    pixels = quality.bad_pixels(calibration, parameters)
    references = quality.references(calibration)
    matches = quality.low_order(parameters)
    model = loop_model(parameters)
    stability = tuple(
        model.predict(loops, delay) for loops in get_args(Loops) for delay in DELAYS if model is not None
    )
    warnings = [*conditions.warnings(), *actuators.warnings(), *pixels.warnings(), *references.warnings()]
    warnings += [note for match in matches for note in match.warnings()]
    report = CalibrationReport(
        beam=parameters.beam,
        mask=parameters.mask,
        config_file=parameters.config_file,
        config_sha256=parameters.config_sha256,
        conditions=conditions,
        actuators=actuators,
        bad_pixels=pixels,
        references=references,
        low_order=matches,
        stability=stability,
        warnings=(),
    )
    warnings += _stability_warnings(report)
    return CalibrationReport(**{**vars(report), "warnings": tuple(warnings)})


def _stability_warnings(report: CalibrationReport) -> list[str]:
    if not report.stability:
        return ["no interaction matrix that fits the DM map: stability cannot be predicted"]
    weakest = [report.weakest(loops) for loops in get_args(Loops)]
    return [
        f"closed {found.loops} predicted {found}"
        for found in weakest
        if found is not None and not found.is_stable
    ]


def render(report: CalibrationReport) -> str:
    """Write a report for people."""
    conditions, actuators, pixels = report.conditions, report.actuators, report.bad_pixels
    references = report.references
    rows = [
        (
            "condition numbers",
            f"LO {_number(conditions.low_order)}, HO {_number(conditions.high_order)},"
            f" all {_number(conditions.all)}",
        ),
        (
            "actuators",
            f"{actuators.in_pupil} in the pupil, {actuators.controlled} controlled,"
            f" {len(actuators.dead)} dead, {len(actuators.hot)} hot",
        ),
        (
            "bad pixels",
            f"{pixels.count} ({100 * pixels.share:.1f} %), {100 * pixels.share_in_pupil:.1f} % of the pupil",
        ),
        (
            "I0 against N0",
            f"correlation {_number(references.correlation)},"
            f" in the pupil {_number(references.correlation_in_pupil)};"
            f" flux ratio {_number(references.flux_ratio)};"
            f" negative in the pupil {references.negative_I0} and {references.negative_N0}",
        ),
    ]
    rows += [
        (
            f"low-order mode {match.mode}",
            f"measured against predicted: correlation {match.correlation:.3f}, ratio {match.ratio:.3f}",
        )
        for match in report.low_order
    ]
    rows += [(f"closed {prediction.loops}", str(prediction)) for prediction in report.stability]
    rows += [("warning", note) for note in report.warnings] or [("warnings", "none")]
    head = f"beam {report.beam}, mask {report.mask}: {report.config_file}"
    return "\n".join([head, *(f"  {name:<18} {text}" for name, text in rows)])


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
