"""The real-time loop of one beam: its arrays, its parameter slots, its thread and its statistics."""

from baldr_tango.rtc.arrays import LoopArrays, build_arrays
from baldr_tango.rtc.histogram import RecentPercentiles
from baldr_tango.rtc.loop import RealTimeLoop
from baldr_tango.rtc.scheduling import lock_memory
from baldr_tango.rtc.slots import ParameterSlots

__all__ = ["LoopArrays", "ParameterSlots", "RealTimeLoop", "RecentPercentiles", "build_arrays", "lock_memory"]
