"""Replay: a recording goes once more through the compiled loop, with the same parameters or with others."""

from baldr_tango.replay.changes import Changes, changes_of_file, changes_of_texts
from baldr_tango.replay.replay import replay
from baldr_tango.replay.result import Difference, ReplayResult

__all__ = ["Changes", "Difference", "ReplayResult", "changes_of_file", "changes_of_texts", "replay"]
