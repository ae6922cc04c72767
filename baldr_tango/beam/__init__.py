"""One beam: configuration, real-time loop, telemetry and peers, behind a small interface."""

from baldr_tango.beam.beam import Beam
from baldr_tango.beam.state import TRANSITIONS, BeamState, StateChange, after

__all__ = ["TRANSITIONS", "Beam", "BeamState", "StateChange", "after"]
