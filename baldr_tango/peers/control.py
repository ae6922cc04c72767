"""What a calibration moves on the instrument, asked of the MDS."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final

from baldr_tango.errors import BackendError
from baldr_tango.peers.mds import MdsClient

LAMP: Final = "SBB"
"""Broad-band calibration source."""

OUT_UM: Final = 200.0
"""Displacement of the phase-mask stage that the instrument's calibration scripts use."""


class ControlClient:
    """Lamp, phase masks and (virtual instrument only) turbulence, through the MDS.

    Parameters
    ----------
    mds : ZMQ endpoint of the MDS.
    mask : name of the phase mask that goes in, for instance "H3"; or that of each beam.
    timeout_s : longest wait for a reply [s].
    move_timeout_s : longest wait for the end of one move [s].
    """

    def __init__(
        self,
        mds: str,
        mask: str | Mapping[int, str] = "H3",
        timeout_s: float = 10.0,
        move_timeout_s: float = 60.0,
    ) -> None:
        self.mask = mask
        self._move_timeout_s = move_timeout_s
        self._mds = MdsClient(mds, timeout_s)

    def close(self) -> None:
        """Release the connection."""
        self._mds.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_lamp(self, on: bool) -> None:
        """Switch the calibration source on or off; `BackendError` when the MDS refuses."""
        self._mds.ask(f"{'on' if on else 'off'} {LAMP}")

    def move_mask(self, beam: int, in_: bool) -> None:
        """Put the phase mask of `beam` in, or 200 um beside, and wait until it stands still.

        Raises `BackendError` when the MDS refuses or the stage does not arrive.
        """
        # Both begin at the mask: out twice is not twice as far, where the next mask may be.
        mask = self.mask if isinstance(self.mask, str) else self.mask[beam]
        self._mds.move_to_mask(beam, mask, timeout_s=self._move_timeout_s).result()
        if not in_:
            self._mds.move_by(f"BMX{beam}", OUT_UM, timeout_s=self._move_timeout_s).result()

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        """Switch the virtual instrument's turbulence, for one beam or all.

        A real MDS does not know this word; then there is nothing to switch and nothing happens.
        """
        words = ["sim_turbulence", "on" if on else "off", *([] if beam is None else [str(beam)])]
        reply = self._mds.send(" ".join(words))
        if reply.startswith("NACK") and "custom command" not in reply:
            raise BackendError(f"MDS at {self._mds.endpoint} refused {' '.join(words)!r}: {reply}")
