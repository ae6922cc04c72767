"""Shared-memory streams of the instrument (ImageStreamIO): frames of the camera, commands of the mirrors."""

from baldr_tango.streams.keywords import Keyword
from baldr_tango.streams.layout import (
    CNT0,
    CNT1,
    CNT2,
    CREATION,
    DATA,
    DATATYPES,
    KEYWORD,
    METADATA,
    SEMAPHORE_CAP,
    VERSION,
    WRITE,
    WRITE_TIME,
    StreamLayout,
    semaphore_name,
    shm_directory,
    stream_path,
)
from baldr_tango.streams.semaphores import Semaphore
from baldr_tango.streams.stream import Stream

__all__ = [
    "CNT0",
    "CNT1",
    "CNT2",
    "CREATION",
    "DATA",
    "DATATYPES",
    "KEYWORD",
    "METADATA",
    "SEMAPHORE_CAP",
    "VERSION",
    "WRITE",
    "WRITE_TIME",
    "Keyword",
    "Semaphore",
    "Stream",
    "StreamLayout",
    "semaphore_name",
    "shm_directory",
    "stream_path",
]
