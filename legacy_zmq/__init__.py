"""The commander protocol: text requests over ZMQ, as the existing scripts and GUIs send them."""

from legacy_zmq.client import CommanderClient
from legacy_zmq.commander import CommanderServer
from legacy_zmq.protocol import parse, reply
from legacy_zmq.server import Later, ReplyServer

__all__ = ["CommanderClient", "CommanderServer", "Later", "ReplyServer", "parse", "reply"]
