"""Where the time of a frame goes."""

from __future__ import annotations

from functools import partial
from typing import Any

from baldr_tango.beam import Beam
from baldr_tango.beam.budget import take_budget
from baldr_tango.beam.jobs import Job
from baldr_tango.commands.options import options_of, positive_integer
from baldr_tango.commands.table import beam_command

MOST_FRAMES = 1_000_000
"""Most frames of one latency budget."""


@beam_command(background=True)
def latency_budget(beam: Beam, frames: Any = None) -> Job:
    """Time the stages of the loop's next frames: median, 99th percentile and maximum of each in microseconds.

    wait: from the write time in the stream's header to the wake-up, null when the camera does not keep it;
    read: frame out of the stream; reconstruct: dark, signal, modes; control: controllers, limits, map of the
    command; write: into the DM channel, posts included; record: figures of merit, telemetry. latency is from
    the wake-up to the command written, all but wait and record. Loops go on as they are.

    Parameters
    ----------
    frames : number of frames, 1000 by default; or an object: {"frames": 1000, "wait": false}
    """
    given = options_of("latency_budget", ["frames"], [frames])
    number = positive_integer("latency_budget", "frames", given.get("frames", 1000), 1, MOST_FRAMES)
    return beam.jobs.start("latency_budget", partial(take_budget, beam, frames=number))
