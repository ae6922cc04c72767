"""The virtual instrument: streams of four cameras and four deformable mirrors, one compiled thread."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baldr_tango.configuration.runtime import RuntimeConfig


@dataclass(frozen=True)
class InstrumentCounters:
    """What the virtual instrument has counted since its start."""

    ticks: int
    """Frame periods served (all beams)."""
    late_ticks: int
    """Frame periods that began more than half a period late."""
    skipped_ticks: int
    """Frame periods left out after a long stall."""


class VirtualInstrument:
    """Camera, phase masks, lamp and deformable mirrors of all beams, behind the real streams.

    Every method may be called from any thread at any time.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        raise NotImplementedError

    @property
    def beams(self) -> tuple[int, ...]:
        """Beams that are served."""
        raise NotImplementedError

    def start(self) -> None:
        """Create the streams and post frames until `stop`."""
        raise NotImplementedError

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and remove the streams that `start` created."""
        raise NotImplementedError

    def __enter__(self) -> VirtualInstrument:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        raise NotImplementedError

    @property
    def rate_hz(self) -> float:
        """Frame rate [Hz]."""
        raise NotImplementedError

    def set_rate(self, hz: float) -> None:
        """Change the frame rate [Hz]; the flux per frame changes with the exposure time."""
        raise NotImplementedError

    @property
    def gain(self) -> float:
        """Camera gain."""
        raise NotImplementedError

    def set_gain(self, gain: float) -> None:
        """Change the camera gain; ADU per electron change in proportion."""
        raise NotImplementedError

    @property
    def lamp(self) -> bool:
        """True while the light source is on."""
        raise NotImplementedError

    def set_lamp(self, on: bool) -> None:
        """Switch the light source on or off."""
        raise NotImplementedError

    def mask_in(self, beam: int) -> bool:
        """Tell whether the phase mask of `beam` is in the beam."""
        raise NotImplementedError

    def move_mask(self, beam: int, in_: bool) -> None:
        """Move the phase mask of `beam` in or out."""
        raise NotImplementedError

    def turbulence(self, beam: int) -> bool:
        """Tell whether `beam` sees turbulence, tip/tilt jitter, vibration and disturbances."""
        raise NotImplementedError

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        """Switch turbulence on or off for one beam, or for all."""
        raise NotImplementedError

    @property
    def silent(self) -> bool:
        """True while no frame is written or posted (the mirrors are served)."""
        raise NotImplementedError

    def set_silent(self, silent: bool) -> None:
        """Stop or resume writing frames, as a camera does that was told ``stop`` or ``fetch``."""
        raise NotImplementedError

    def set_drop_every(self, frames: int) -> None:
        """Leave out every n-th frame; 0 drops none."""
        raise NotImplementedError

    def counters(self) -> InstrumentCounters:
        """Report the counters of the thread."""
        raise NotImplementedError
