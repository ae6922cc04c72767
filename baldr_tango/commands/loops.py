"""Loop states: open, close, pause, resume, stop, start, and the status of it all."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json
from baldr_tango.names import SERVO_RUN, SERVO_STOP, LoopState


def _is_forced(force: Json) -> bool:
    """Read the argument of the closing commands; anything else, like the ``""`` of old clients, means no."""
    return force is True or (isinstance(force, str) and force.strip().lower() == "force")


@beam_command(tango_name="status_json", reads=True)
def status(beam: Beam) -> dict[str, Json]:
    """Report every status key at once."""
    return beam.status()


@beam_command(unlisted=("force",))
def close_baldr_LO(beam: Beam, force: Json = False) -> dict[str, Json]:
    """Close the low-order (tip/tilt) loop; its controller starts from zero.

    Refused when it is predicted unstable.

    Parameters
    ----------
    force : true or "force" closes it all the same
    """
    return {"ok": True, "TT_state": int(beam.set_loops(lo=LoopState.CLOSED, force=_is_forced(force)).lo)}


@beam_command()
def force_close_baldr_LO(beam: Beam) -> dict[str, Json]:
    """Close the low-order (tip/tilt) loop even if it is predicted unstable."""
    return close_baldr_LO(beam, True)


@beam_command()
def open_baldr_LO(beam: Beam) -> dict[str, Json]:
    """Open the low-order (tip/tilt) loop: reset its controller and remove its correction."""
    return {"ok": True, "TT_state": int(beam.set_loops(lo=LoopState.OPEN).lo)}


@beam_command(unlisted=("force",))
def close_baldr_HO(beam: Beam, force: Json = False) -> dict[str, Json]:
    """Close the high-order loop; its controller starts from zero.

    Refused when it is predicted unstable.

    Parameters
    ----------
    force : true or "force" closes it all the same
    """
    return {"ok": True, "HO_state": int(beam.set_loops(ho=LoopState.CLOSED, force=_is_forced(force)).ho)}


@beam_command()
def force_close_baldr_HO(beam: Beam) -> dict[str, Json]:
    """Close the high-order loop even if it is predicted unstable."""
    return close_baldr_HO(beam, True)


@beam_command()
def open_baldr_HO(beam: Beam) -> dict[str, Json]:
    """Open the high-order loop: reset its controller and remove its correction."""
    return {"ok": True, "HO_state": int(beam.set_loops(ho=LoopState.OPEN).ho)}


@beam_command(unlisted=("force",))
def close_all(beam: Beam, force: Json = False) -> dict[str, Json]:
    """Close both loops at the same frame.

    Refused when they are predicted unstable.

    Parameters
    ----------
    force : true or "force" closes them all the same
    """
    state = beam.set_loops(lo=LoopState.CLOSED, ho=LoopState.CLOSED, force=_is_forced(force))
    return {"ok": True, "TT_state": int(state.lo), "HO_state": int(state.ho)}


@beam_command()
def force_close_all(beam: Beam) -> dict[str, Json]:
    """Close both loops at the same frame even if they are predicted unstable."""
    return close_all(beam, True)


@beam_command()
def open_all(beam: Beam) -> dict[str, Json]:
    """Open both loops at the same frame and remove their corrections."""
    state = beam.set_loops(lo=LoopState.OPEN, ho=LoopState.OPEN)
    return {"ok": True, "TT_state": int(state.lo), "HO_state": int(state.ho)}


@beam_command()
def pauseRTC(beam: Beam) -> dict[str, Json]:
    """Stop processing frames; controllers and mirror keep their state."""
    beam.pause()
    return {"ok": True, "paused": True}


@beam_command()
def resumeRTC(beam: Beam) -> dict[str, Json]:
    """Go on after a pause, with the next fresh frame."""
    beam.resume()
    return {"ok": True, "paused": False}


@beam_command()
def pause_baldr_rtc(beam: Beam) -> str:
    """Stop processing frames, as pauseRTC; the reply is the older text."""
    beam.pause()
    return "RTC paused."


@beam_command()
def resume_baldr_rtc(beam: Beam) -> str:
    """Go on after a pause, as resumeRTC; the reply is the older text."""
    beam.resume()
    return "RTC resumed."


@beam_command()
def stop_baldr(beam: Beam) -> dict[str, Json]:
    """End the real-time thread: loops open, mirror flat; start_baldr brings it back."""
    beam.stop_rtc()
    return {"ok": True, "servo_mode": SERVO_STOP}


@beam_command(aliases=("start",))
def start_baldr(beam: Beam) -> dict[str, Json]:
    """Start the real-time thread again after stop_baldr, loops open."""
    beam.start_rtc()
    return {"ok": True, "servo_mode": SERVO_RUN}


@beam_command(aliases=("reset",))
def reset_fault(beam: Beam) -> dict[str, Json]:
    """Acknowledge a tripped safety limit; the loops stay open until they are closed again."""
    beam.reset_fault()
    state = beam.state()
    return {"ok": True, "rtc_state": state.rtc.name}


@beam_command(raw_reply=True)
def exit(beam: Beam) -> str:
    """Stop the beam and its commander; the server ends when no beam is left."""
    beam.request_exit()
    return "Exiting!"
