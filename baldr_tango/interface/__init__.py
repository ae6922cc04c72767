"""One definition per command and per value; Tango, ZMQ and the manual are derived from them."""

from baldr_tango.interface.command import Argument, Command, CommandTable, Json, command
from baldr_tango.interface.values import VALUES, Value, status_names

__all__ = ["VALUES", "Argument", "Command", "CommandTable", "Json", "Value", "command", "status_names"]
