"""Clients of the camera server and the MDS, against the virtual instrument's and odd servers."""

from __future__ import annotations

import json

import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers import CameraClient, ControlClient, MdsClient
from legacy_zmq.instrument import ControlServers
from tests.system.zmq_servers import TIMEOUT_S, RepServer, silent_endpoint
from tests.virtual_controls import RecordedInstrument

pytestmark = pytest.mark.system


@pytest.fixture
def instrument():
    return RecordedInstrument()


@pytest.fixture
def servers(instrument):
    with ControlServers(instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0") as servers:
        yield servers


@pytest.fixture
def camera(servers):
    with CameraClient(servers.camera.endpoint, TIMEOUT_S) as client:
        yield client


@pytest.fixture
def mds(servers):
    with MdsClient(servers.mds.endpoint, TIMEOUT_S) as client:
        yield client


def test_the_camera_tells_rate_gain_and_reads(camera, instrument):
    instrument.rate_hz, instrument.gain = 1739.356, 5.0
    assert camera.fps() == 1739.356
    assert camera.gain() == 5.0
    assert camera.nbreadworeset() == 2


def test_a_camera_command_gives_the_decoded_and_the_raw_reply(camera, instrument):
    assert camera.cli("gain raw") == "  10\r\nfli-cli>"
    assert json.loads(camera.cli_raw("gain raw")) == "  10\r\nfli-cli>"
    assert "Result:OK" in camera.cli("set gain 3")
    assert instrument.gain == 3.0
    assert camera.raw("get_gain") == "3"


def test_an_error_of_the_camera_server_is_raised(camera):
    with pytest.raises(BackendError, match="101"):
        camera.cli("set gain 101")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"Error: [json.exception.parse_error.101] parse error", "failed"),
        (b'{"error":"Missing argument args at position 0"}', "failed"),
        (b'"nonsense\\r\\n"', "no number"),
        (b"", "no number"),
    ],
)
def test_no_number_is_read_from_an_odd_reply(reply, said):
    with (
        RepServer(lambda request: reply) as server,
        CameraClient(server.endpoint, TIMEOUT_S) as client,
        pytest.raises(BackendError, match=said),
    ):
        client.fps()


def test_what_is_sent_to_the_camera_is_the_cpp_rtcs_request():
    with RepServer(lambda request: b'"  1000.000\\r\\nfli-cli>"') as server:
        with CameraClient(server.endpoint, TIMEOUT_S) as client:
            assert client.fps() == 1000.0
            client.cli('set "x"')
        assert server.requests == [b'cli "fps raw"', rb'cli "set \"x\""']


def test_the_mds_reply_with_and_without_its_newline(mds, instrument):
    assert mds.raw("off SBB") == "ACK\n"
    assert not instrument.lamp
    assert mds.send("on SBB") == "ACK"
    assert instrument.lamp
    assert mds.send("dance").startswith("NACK")
    with pytest.raises(BackendError, match="refused 'dance'"):
        mds.ask("dance")


def test_an_eso_command_gets_the_nul_that_the_mds_cuts_off():
    with RepServer(lambda request: request[:-1] + b"\0\n") as server:
        with MdsClient(server.endpoint, TIMEOUT_S) as client:
            assert client.send('{"command":{}}') == '{"command":{}}'
        assert server.requests == [b'{"command":{}}\0']


@pytest.mark.parametrize("text", ["", " ", "\0", "\n", "fpm_readpos phasemask1"])
def test_what_would_end_the_mds_is_not_sent(text):
    with RepServer(lambda request: b"ACK\n") as server:
        with MdsClient(server.endpoint, TIMEOUT_S) as client, pytest.raises(RequestError, match="MDS"):
            client.send(text)
        assert not server.requests


def test_an_absent_peer_is_an_error_that_names_it_its_endpoint_and_the_time_out():
    endpoint = silent_endpoint()
    with (
        CameraClient(endpoint, 0.1) as client,
        pytest.raises(BackendError, match=f"camera server at {endpoint}.*gain raw.*0.1 s"),
    ):
        client.gain()
    with (
        MdsClient(endpoint, 0.1) as client,
        pytest.raises(BackendError, match=f"MDS at {endpoint}.*off SBB.*0.1 s"),
    ):
        client.send("off SBB")


def test_a_calibration_moves_lamp_masks_and_turbulence(servers, instrument):
    with ControlClient(servers.mds.endpoint, timeout_s=TIMEOUT_S) as control:
        control.set_lamp(False)
        assert not instrument.lamp
        control.set_lamp(True)
        assert instrument.lamp
        for _ in range(2):
            control.move_mask(2, False)
            assert instrument.masks_in == {1: True, 2: False, 3: True, 4: True}
        control.move_mask(2, True)
        assert all(instrument.masks_in.values())
        control.set_turbulence(False)
        assert not any(instrument.turbulent.values())
        control.set_turbulence(True, 3)
        assert instrument.turbulent == {1: False, 2: False, 3: True, 4: False}


def test_a_refused_move_is_an_error(servers):
    with (
        ControlClient(servers.mds.endpoint, mask="H9", timeout_s=TIMEOUT_S) as control,
        pytest.raises(BackendError, match="refused 'fpm_movetomask phasemask1 H9'"),
    ):
        control.move_mask(1, True)


def test_where_there_is_no_turbulence_to_switch_nothing_happens(servers):
    with (
        RepServer(lambda request: b"NACK: Unkown custom command\n") as real,
        ControlClient(real.endpoint, timeout_s=TIMEOUT_S) as control,
    ):
        control.set_turbulence(False)
        assert real.requests == [b"sim_turbulence off"]
    with (
        ControlClient(servers.mds.endpoint, timeout_s=TIMEOUT_S) as control,
        pytest.raises(BackendError, match="refused 'sim_turbulence on 9'"),
    ):
        control.set_turbulence(True, 9)


def test_an_endpoint_in_use_leaves_no_server_behind(servers, instrument):
    with pytest.raises(BackendError, match="virtual MDS: cannot listen"):
        ControlServers(instrument, camera="tcp://127.0.0.1:0", mds=servers.mds.endpoint).__enter__()
