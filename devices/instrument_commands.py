"""Commands for several beams at once, derived from the table of commands.

The argument is the list of beams: empty, or the single number 0, means all, as the observatory's
``beam`` parameter has it. The reply is JSON with the outcome of each beam and one sentence for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tango import CmdArgType, DevFailed, DispLevel
from tango.server import command

from baldr_tango.commands import COMMANDS
from baldr_tango.errors import RequestError
from baldr_tango.interface import Command
from devices.commands import input_type, output_type, takes_json
from devices.failures import REASONS, describe
from devices.text import tango_text

FOR_ALL: Final = (
    "status",
    "open_all",
    "close_all",
    "open_baldr_LO",
    "close_baldr_LO",
    "open_baldr_HO",
    "close_baldr_HO",
    "pauseRTC",
    "resumeRTC",
    "stop_baldr",
    "start_baldr",
    "reset_fault",
    "telem_on",
    "telem_off",
    "save_telemetry",
    "dark_update",
    "I0_update",
    "I0_update_lucky",
    "N0_update",
    "undo_references",
    "save_references",
    "calibration_report",
    "job_status",
    "job_cancel",
    "inject_off",
    "clear_openloop_offsets",
)
"""Commands that need no argument and make sense for all beams; each is a command of the instrument.

A list and not a rule: whether a new command may run on all beams at once is a decision of its author.
Not here: ``exit``, the ``force_`` commands, and what moves the instrument or pokes a mirror. Not
``acquire_dark`` either, which switches the lamp that all beams share: the first beam to end would switch it
on under the others. One beam sends ``off SBB`` to the MDS, then ``dark_update`` is for all.
"""

WITH_ARGUMENTS: Final = (
    "ctrl_list",
    "ctrl_get",
    "ctrl_set",
    "update_ctrl_param",
    "dg",
    "get_rtc_field",
    "set_rtc_field",
    "set_telem_capacity",
    "set_telem_save_format",
    "set_telem_save_path",
    "poll_telem_vector",
    "poll_telem_scalar",
    "set_automation",
    "change_boxcar",
    "configure_burst",
    "latency_budget",
    "build_interaction_matrix",
    "compute_reconstructor",
)
"""Commands with arguments that ``for_beams`` runs as well.

Those that take long begin a job at each beam, on its own mirror and frames; ``job_status`` and ``job_cancel``
are for all of them.
"""

BEAMS_DOC: Final = "beam numbers; empty or 0: all beams"
REPLY_DOC: Final = "JSON: ok, content (OK or ERROR: ...), beams: by number ok and reply or error"


@dataclass(frozen=True)
class Request:
    """A command on its way to some beams."""

    entry: Command
    beams: tuple[int, ...]
    argument: Any
    """Tango argument of the beam's command; None without."""


@dataclass(frozen=True)
class Outcome:
    """What came of a command at one beam: a Tango reply, or the error in its place."""

    reply: Any = None
    error: Exception | None = None


def grouped_commands() -> list[Command]:
    """Return the commands of `FOR_ALL`."""
    return [COMMANDS.find(name) for name in FOR_ALL]


def instrument_command_members() -> dict[str, Callable[..., Any]]:
    """Return one Tango command for each of `FOR_ALL`, by the Tango name that it has in a beam.

    The device runs it through its method ``run_command(entry, beams)``.
    """
    return {entry.tango_name: _command(entry) for entry in grouped_commands()}


def _command(entry: Command) -> Callable[..., Any]:
    def run(device: Any, given: Sequence[int]) -> str:
        return str(device.run_command(entry, given))

    run.__name__ = run.__qualname__ = entry.tango_name
    run.__doc__ = tango_text(entry.doc)
    return command(
        run,
        dtype_in=CmdArgType.DevVarShortArray,
        doc_in=BEAMS_DOC,
        dtype_out=CmdArgType.DevString,
        doc_out=tango_text(f"{REPLY_DOC}. {entry.summary}"),
        display_level=DispLevel.EXPERT if entry.expert else DispLevel.OPERATOR,
    )


def chosen(given: Iterable[int], beams: Sequence[int]) -> tuple[int, ...]:
    """Return the beams that a client means, in beam order.

    Raises `RequestError` for a beam that the instrument does not have, and for 0 beside others.
    """
    wanted = set(given)
    if wanted <= {0}:
        return tuple(beams)
    if not wanted <= set(beams):
        allowed = ", ".join(map(str, beams))
        found = ", ".join(map(str, sorted(wanted)))
        raise RequestError(f"beams: found {found}, expected some of {allowed}, or 0 alone for all")
    return tuple(beam for beam in beams if beam in wanted)


def request_of(entry: Command, given: Iterable[int], beams: Sequence[int]) -> Request:
    """Return the request of a command without arguments; raises `RequestError` as `chosen` does."""
    return Request(entry, chosen(given, beams), _tango_argument(entry, []))


def parse_request(text: str, beams: Sequence[int]) -> Request:
    """Return the request in the text ``["command", [beams], argument, ...]``.

    Raises `RequestError` when it is not that, for a command that is not allowed for several beams at once,
    and for wrong arguments: nothing has been sent then.
    """
    try:
        parts = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(f"for_beams: not JSON ({error}): {text!r}") from None
    if not isinstance(parts, list) or not parts or not isinstance(parts[0], str):
        raise RequestError(f'for_beams: found {text!r}, expected ["command", [beams], argument, ...]')
    name, wanted, arguments = parts[0], parts[1] if len(parts) > 1 else [], parts[2:]
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if not all(isinstance(beam, int) and not isinstance(beam, bool) for beam in wanted):
        raise RequestError(f"for_beams: beams: found {wanted!r}, expected a list of beam numbers")
    entry = COMMANDS.find(name)
    if entry.name not in (*FOR_ALL, *WITH_ARGUMENTS):
        raise RequestError(f"{entry.name} is not for several beams at once: give it to one beam")
    return Request(entry, chosen(wanted, beams), _tango_argument(entry, arguments))


def _tango_argument(entry: Command, arguments: Sequence[Any]) -> Any:
    bound = entry.bind(arguments)
    if input_type(entry) is CmdArgType.DevVoid:
        return None
    if takes_json(entry):
        return json.dumps(list(arguments)) if arguments else ""
    return bound[0]


def compose(entry: Command, outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """Return the reply about all beams, in the words of the observatory's back-end server."""
    beams = {number: _beam_reply(entry, outcome) for number, outcome in outcomes.items()}
    done = [f"baldr{number}: OK" for number, reply in beams.items() if reply["ok"]]
    errors = [f"baldr{number}: {reply['error']}" for number, reply in beams.items() if not reply["ok"]]
    content = "OK"
    if errors:
        told = "; ".join(errors)
        content = f"ERROR: partial ({'; '.join(done)}; errors: {told})" if done else f"ERROR: {told}"
    return {"ok": not errors, "content": content, "beams": {str(n): reply for n, reply in beams.items()}}


def _beam_reply(entry: Command, outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"ok": False, "error": " ".join(_tell(outcome.error).split())}
    is_json = output_type(entry) is CmdArgType.DevString and entry.returns is not str
    reply = json.loads(outcome.reply) if is_json else outcome.reply
    if isinstance(reply, dict) and reply.get("ok") is False:
        return {"ok": False, "error": str(reply.get("error", "refused")), "reply": reply}
    return {"ok": True, "reply": reply}


def _tell(error: Exception) -> str:
    """Return the beam's own words when it has refused; otherwise all that Tango says of the call."""
    if isinstance(error, DevFailed) and error.args[0].reason in {word for _, word in REASONS}:
        return str(error.args[0].desc)
    return describe(error)
