"""The dark sequence on the virtual instrument: light off, dark, light on, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.errors import BackendError, StateError
from baldr_tango.names import LoopState
from tests.harness import wait_for
from tests.virtual_beam import VirtualBeam


class Lamp:
    """What the MDS does with the calibration source, at once."""

    def __init__(self, virtual: VirtualBeam, broken: bool = False) -> None:
        self.virtual = virtual
        self.broken = broken
        self.told: list[str] = []

    def __call__(self, text: str) -> str:
        self.told.append(text)
        self.virtual.instrument.set_lamp(text == "on SBB")
        return "NACK: no such lamp\n" if self.broken else "ACK\n"


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[VirtualBeam]:
    with VirtualBeam(tmp_path, flux_adu=60000.0) as virtual:
        yield virtual


def test_the_dark_is_measured_without_light_and_the_light_comes_back(
    virtual: VirtualBeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = Lamp(virtual)
    monkeypatch.setattr(virtual.beam, "send_mds", lamp)
    wrong = np.full(1024, 900.0)
    virtual.loop.wait_adopted(virtual.loop.slots.change(dark=wrong), 5.0)
    virtual.wait_frames(50)
    reply = virtual.ask("acquire_dark", {"frames": 400, "settle_s": 0.1})
    assert reply["frames"] == 400
    # Pedestal of the virtual camera, and the noise of 400 frames.
    np.testing.assert_allclose(virtual.loop.slots.current("dark"), 1000.0, atol=1.0)
    assert lamp.told == ["off SBB", "on SBB"]
    assert virtual.instrument.lamp
    virtual.beam.set_loops(lo=LoopState.CLOSED, force=True)
    with pytest.raises(StateError, match="both loops open"):
        virtual.ask("acquire_dark")
    virtual.beam.set_loops(lo=LoopState.OPEN)
    assert virtual.ask("acquire_dark", {"settle_s": 60.0, "wait": False})["pending"] is True
    wait_for(lambda: lamp.told[-1] == "off SBB", 10.0, "a lamp that is off")
    assert virtual.ask("job_cancel")["state"] == "cancelled"
    assert lamp.told[-2:] == ["off SBB", "on SBB"]
    monkeypatch.setattr(virtual.beam, "send_mds", Lamp(virtual, broken=True))
    with pytest.raises(BackendError, match="no such lamp"):
        virtual.ask("acquire_dark")
