"""An operator's night on the virtual instrument, over the old commander strings and again over Tango."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import tango

from baldr_tango.commands import COMMANDS
from baldr_tango.simulator.truth import TruthReader
from baldr_tango.telemetry import TelemetryFile
from devices.commands import takes_json
from legacy_zmq.client import CommanderClient
from tests.harness import wait_for
from tests.system.product import Product, running_product

pytestmark = pytest.mark.system

LONG_S = 120.0


class Operator(Protocol):
    """Somebody who gives commands and reads values of beam 1."""

    def ask(self, name: str, *arguments: Any) -> Any:
        """Give a command; return its reply."""

    def close(self) -> None:
        """Hang up."""


class AtTheCommander:
    """An operator with the old text commands."""

    def __init__(self, product: Product) -> None:
        self._client = CommanderClient(product.config.for_beam(1).commander_endpoint, LONG_S)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Send ``name [a, b]``, as the operators' notes have it; an error reply fails the test."""
        text = f"{name} {json.dumps(list(arguments))}" if arguments else name
        reply = json.loads(self._client.ask(text))
        assert not (isinstance(reply, dict) and reply.get("ok") is False), reply
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._client.close()


class AtATangoPanel:
    """An operator with a Tango client."""

    def __init__(self, product: Product) -> None:
        self._device = product.device()
        self._device.set_timeout_millis(int(LONG_S * 1000))

    def ask(self, name: str, *arguments: Any) -> Any:
        """Run the Tango command of that name; wait for the end of what works in the background."""
        entry = COMMANDS.find(name)
        if not entry.arguments:
            reply = self._device.command_inout(entry.tango_name)
        elif takes_json(entry):
            reply = self._device.command_inout(entry.tango_name, json.dumps(list(arguments)))
        else:
            reply = self._device.command_inout(entry.tango_name, arguments[0])
        answer = json.loads(reply) if isinstance(reply, str) and reply[:1] in "{[" else reply
        if isinstance(answer, dict) and answer.get("pending") and "job" in answer:
            wait_for(
                lambda: self._job()["state"] not in ("running", "cancelling"), LONG_S, f"the end of {name}"
            )
            assert self._job()["state"] == "done", self._job()
            return self._job()["result"]
        return answer

    def _job(self) -> dict[str, Any]:
        return json.loads(self._device.job_status())

    def close(self) -> None:
        """Nothing to hang up."""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("night"), beams=(1,)) as running:
        yield running


@pytest.fixture(params=[AtTheCommander, AtATangoPanel])
def operator(product: Product, request: pytest.FixtureRequest) -> Iterator[Operator]:
    someone = request.param(product)
    yield someone
    someone.close()


def frames_later(device: tango.DeviceProxy, count: int) -> None:
    """Let some frames pass."""
    start = device.frames
    wait_for(lambda: device.frames > start + count, LONG_S, f"{count} frames")


def move_mask(operator: Operator, device: tango.DeviceProxy, distance_um: float) -> None:
    """Move the phase mask sideways and wait until it stands there and frames show it."""
    wait_for(lambda: device.mask_state not in ("unknown", "moving"), LONG_S, "a known position of the mask")
    target = device.mask_x + distance_um
    operator.ask("send_mds_command", f"moverel BMX1 {distance_um:.1f}")

    def stands() -> bool:
        return abs(device.mask_x - target) < 1.0 and device.mask_state != "moving"

    wait_for(stands, LONG_S, "a mask that stands")
    frames_later(device, 300)


def wavefront_error_nm(product: Product) -> float:
    """Truth of the virtual instrument: rms over the next second or so."""
    streams = product.config.for_beam(1).streams
    with TruthReader(streams.camera, streams.directory or None) as truth:
        frames_later(product.device(), 400)
        return float(truth.means().opd_rms_nm)


def test_a_night(product: Product, operator: Operator, tmp_path: Path) -> None:
    device = product.device()
    # Start: whatever the day has left behind, the loops are open.
    operator.ask("open_all")
    wait_for(lambda: device.State() == tango.DevState.STANDBY, LONG_S, "a beam that stands by")

    # Dark with the lamp off, clear pupil beside the mask, reference behind it.
    dark = operator.ask("acquire_dark", 200)
    assert dark["frames"] >= 200
    move_mask(operator, device, 300.0)
    clear = operator.ask("N0_update", 200)
    assert clear["frames"] >= 200
    operator.ask("send_mds_command", "sim_turbulence off")
    move_mask(operator, device, -300.0)
    assert operator.ask("I0_update", 200)["frames"] >= 200
    operator.ask("send_mds_command", "sim_turbulence on")
    frames_later(device, 100)
    open_nm = wavefront_error_nm(product)

    # Tip/tilt: close, tune, look at its answer to a known signal.
    operator.ask("close_baldr_LO")
    operator.ask("update_ctrl_param", "LO", "ki", "all", 0.2)
    assert operator.ask("dg", "LO", "ki", 0.1)["status"] == "success"
    assert np.allclose(operator.ask("ctrl_get", "LO", "ki")["value"], 0.3)
    operator.ask("tt_inj", "prbs", 0.01, "command")
    frames_later(device, 200)
    assert json.loads(device.status_json())["inj_enabled"] == 1
    operator.ask("tt_inj", "off")
    assert json.loads(device.status_json())["inj_enabled"] == 0

    # High order; the wavefront must be better than without correction.
    operator.ask("close_baldr_HO")
    frames_later(device, 500)
    assert (device.TT_state, device.HO_state) == (1, 1)
    closed_nm = wavefront_error_nm(product)
    assert closed_nm < 0.6 * open_nm

    # Telemetry, to a directory of the operator's choice.
    operator.ask("set_telem_save_path", str(tmp_path))
    operator.ask("set_telem_save_format", "hdf5")
    operator.ask("set_telem_capacity", 300)
    frames_later(device, 300)
    saved = operator.ask("save_telemetry")
    wait_for(lambda: Path(saved["path"]).is_file(), LONG_S, "the saved telemetry")
    with TelemetryFile(Path(saved["path"])) as file:
        records = file.records(0, len(file))
        assert len(file) >= 299
        assert np.all(records["HO_servo_mode"] == 1)
        assert file.attributes["beam"] == 1

    # A probe on the open loops; afterwards nothing of it is left on the mirror.
    operator.ask("open_all")
    probe = operator.ask("probe_interaction_data", [[65, 0.04], [65, -0.04]], "zonal", "OL", "img_dm", 10)
    assert probe["n_probes"] == 2
    samples = [np.mean(entry["samples"], axis=0) for entry in probe["probes"]]
    assert np.abs(samples[0] - samples[1]).max() > 5 * np.abs(samples[0] - samples[1]).mean()
    frames_later(device, 5)
    assert device.dm_peak == 0.0

    # Stop, start, and everything still works.
    operator.ask("stop_baldr")
    assert device.State() == tango.DevState.OFF
    operator.ask("start_baldr")
    wait_for(
        lambda: device.State() in (tango.DevState.STANDBY, tango.DevState.ALARM), LONG_S, "a running beam"
    )
    operator.ask("close_all")
    frames_later(device, 100)
    assert device.TT_state == 1
    operator.ask("open_all")
