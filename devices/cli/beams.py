"""Beams seen from outside: what a client of the device server reads of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import tango

from baldr_tango.configuration.runtime import RuntimeConfig
from devices.failures import describe

SHOWN: Final = (
    "TT_state",
    "HO_state",
    "frame_rate",
    "frames",
    "lost_frames",
    "latency_p50",
    "latency_p99",
    "strehl",
    "residual_rms",
    "telemetry_on",
)
"""Attributes of the status table."""

CLIENT_TIMEOUT_MS: Final = 3000


@dataclass(frozen=True)
class Report:
    """One look at a beam."""

    beam: int
    state: tango.DevState = tango.DevState.UNKNOWN
    status: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def is_reachable(self) -> bool:
        """True when the device answered."""
        return bool(self.state != tango.DevState.UNKNOWN)


class BeamClient:
    """A client of one beam's device.

    Parameters
    ----------
    beam : its number.
    device : Tango name, with the database when it is not the one of ``TANGO_HOST``.
    timeout_ms : of every call.
    """

    def __init__(self, beam: int, device: str, timeout_ms: int = CLIENT_TIMEOUT_MS) -> None:
        self.beam = beam
        self.device = device
        self._timeout_ms = timeout_ms
        self._proxy: tango.DeviceProxy | None = None

    def report(self, names: Sequence[str] = SHOWN) -> Report:
        """Look at the beam; a device that does not answer gives the state UNKNOWN and the reason."""
        try:
            read = self._connected().read_attributes(["State", "Status", *names])
        except tango.DevFailed as error:
            return Report(self.beam, status=describe(error))
        values = {entry.name: entry.value for entry in read if not entry.has_failed}
        return Report(
            self.beam,
            values.get("State", tango.DevState.UNKNOWN),
            values.get("Status", ""),
            {name: values.get(name) for name in names},
        )

    def run(self, command: str, argument: Any = None) -> Any:
        """Run a command of the device; raises `tango.DevFailed`."""
        return self._connected().command_inout(command, argument)

    def _connected(self) -> tango.DeviceProxy:
        if self._proxy is None:
            proxy = tango.DeviceProxy(self.device)
            proxy.set_timeout_millis(self._timeout_ms)
            self._proxy = proxy
        return self._proxy


def clients(config: RuntimeConfig, tango_host: str, beams: Iterable[int] | None = None) -> list[BeamClient]:
    """Return one client per beam, of the devices in one Tango database.

    Raises `ConfigError` for a beam that the instrument does not have.
    """
    return [
        BeamClient(beam, f"tango://{tango_host}/{config.for_beam(beam).tango_device}")
        for beam in (beams or config.beams)
    ]
