"""What the control servers command, without frames: records the state that they set."""

from __future__ import annotations


class RecordedInstrument:
    """Stands in for the virtual instrument."""

    def __init__(self, beams: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        self.beams = beams
        self.rate_hz = 1000.0
        self.gain = 10.0
        self.silent = False
        self.lamp = True
        self.masks = dict.fromkeys(beams, "H3")
        self.masks_in = dict.fromkeys(beams, True)
        self.reads = 1
        self.slopes = False
        self.saving = False
        self.mirrors = True
        self.n_channels = 5
        self.zeroed: list[tuple[int, int | None]] = []
        self.recreated = 0
        self.darks = 0
        self.subtracts_dark = False
        self.turbulent = dict.fromkeys(beams, True)

    def set_rate(self, hz: float) -> None:
        self.rate_hz = hz

    def set_gain(self, gain: float) -> None:
        self.gain = gain

    def make_dark(self) -> None:
        self.darks += 1
        self.subtracts_dark = True

    def set_dark_subtraction(self, on: bool) -> None:
        self.subtracts_dark = on

    def set_silent(self, silent: bool) -> None:
        self.silent = silent

    def set_lamp(self, on: bool) -> None:
        self.lamp = on

    def put_mask(self, beam: int, mask: str) -> None:
        self.masks[beam] = mask
        self.masks_in[beam] = mask != ""

    def set_reads(self, reads: int) -> None:
        self.reads = reads

    def set_slopes(self, on: bool) -> None:
        self.slopes = on

    def set_saving(self, on: bool) -> None:
        self.saving = on

    def recreate_cameras(self) -> None:
        self.recreated += 1

    def set_mirrors(self, on: bool) -> None:
        self.mirrors = on

    def set_channels(self, count: int) -> None:
        self.n_channels = count

    def zero_channel(self, beam: int, channel: int | None = None) -> None:
        self.zeroed.append((beam, channel))

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        for each in self.beams if beam is None else (beam,):
            self.turbulent[each] = on
