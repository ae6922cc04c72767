"""The reference page of the loop's rules about faults."""

from __future__ import annotations

from baldr_tango.beam.faults import RULES, TRIP_REASONS, trip_text
from devices.markdown import code, table
from devices.pages import page


def faults_page() -> str:
    """Return the page of what the loop does about wrong frames, controllers and commands."""
    return page(
        "Faults in the loop",
        "What each rule looks for, what the loop does about it, and where it shows. Keys are those of table"
        " `[limits]` of the [runtime file](configuration.md) and [runtime fields](fields.md); attributes"
        " count since the configuration was loaded; flags are bits of the [telemetry](telemetry.md). Whatever"
        " happens, the last command in the DM channel is finite and within `limits.command`.",
        table(
            ["attribute", "when", "the loop", "keys", "flag", "alarm"],
            [
                [
                    code(rule.value),
                    rule.cause,
                    rule.effect,
                    code(*rule.keys),
                    rule.flag,
                    f"... {rule.alarm} within the last second" if rule.alarm else "",
                ]
                for rule in RULES
            ],
        ),
        "`skipped_frames` is the sum of all frames that were read and not used; telemetry flags them SKIPPED."
        " Servo states stay as they are, and the next good frame is used again. A skipped frame does not"
        " enter the running mean. Bad pixels are neither saturated nor negative.",
        "## FAULT",
        "Reasons, attribute `fault_reason`; the attribute `faults` counts them, and `actuator_violations` has"
        " the points of the DM map that were beyond the limit.",
        table(["reason"], [[trip_text(trip, flat=True)] for trip in TRIP_REASONS]),
        "## Running away",
        "`runaway_level` falls by 1 with each frame of a closed loop. A high-order mode beyond its limit adds"
        " 1, a command of the controllers whose rms is above `limits.command_rms` 10, a restart of tip/tilt"
        " 20. A lone violation is forgotten; a loop that is driven away again and again reaches"
        " `limits.runaway`.",
    )
