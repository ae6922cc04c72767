"""Texts passed on to the camera server and to the multi-device server, and how those are doing."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json
from baldr_tango.peers import health


@beam_command(waits=True)
def send_mds_command(beam: Beam, command: str) -> dict[str, Json]:
    """Send a text to the multi-device server and return its reply.

    Parameters
    ----------
    command : text, for instance off SBB
    """
    answer = beam.send_mds(command)
    return {"ok": True, "reply": answer, "mds_response": answer, "command_sent": command}


@beam_command(waits=True)
def send_cam_command(beam: Beam, command: str) -> dict[str, Json]:
    """Send a text to the camera's command line and return the server's reply.

    Parameters
    ----------
    command : text, for instance gain raw
    """
    answer = beam.send_camera(command)
    return {"ok": True, "reply": answer, "camera_response": answer, "command_sent": command}


@beam_command(reads=True, expert=True)
def peer_health(beam: Beam) -> dict[str, Json]:
    """Report how each server that this process talks to is doing: state, since when, counters of requests."""
    return {"ok": True, "peers": [peer.as_dict() for peer in health()]}
