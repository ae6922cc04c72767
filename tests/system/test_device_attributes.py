"""Attributes as clients see them: derived from the table of values, numbers as the commander has them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import tango
from tango import AttrDataFormat, AttrWriteType, CmdArgType, DevState, DispLevel

from baldr_tango.interface import VALUES, Value, status_names
from tests.system.device_bench import DeviceBench, wait_for
from tests.unit.configuration_problem import GRID, SIDE, SIGNALS

pytestmark = pytest.mark.system

FORMATS = {
    "scalar": AttrDataFormat.SCALAR,
    "spectrum": AttrDataFormat.SPECTRUM,
    "image": AttrDataFormat.IMAGE,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceBench]:
    with DeviceBench(tmp_path_factory.mktemp("attributes")) as started:
        started.wait_state(DevState.STANDBY)
        yield started


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.name)
def test_an_attribute_says_what_the_table_says(bench: DeviceBench, value: Value) -> None:
    config = bench.connect().get_attribute_config(value.name)
    assert config.name == value.name
    assert (config.label, config.unit, config.description) == (value.label, value.unit, value.doc)
    assert config.data_format == FORMATS[value.shape]
    assert config.writable == AttrWriteType.READ
    assert config.disp_level == (DispLevel.EXPERT if value.expert else DispLevel.OPERATOR)
    if value.shape == "scalar":
        expected = CmdArgType.DevEnum if value.enum else _SCALARS[value.kind]
        assert config.data_type == expected
    else:
        assert (config.max_dim_x, config.max_dim_y) == value.max_dim
    if value.format:
        assert config.format == value.format
    if value.enum:
        assert list(config.enum_labels) == [member.name for member in value.enum]
    for text, limit in (
        (config.min_value, value.minimum),
        (config.max_value, value.maximum),
        (config.alarms.min_warning, value.warning[0]),
        (config.alarms.max_warning, value.warning[1]),
        (config.alarms.min_alarm, value.alarm[0]),
        (config.alarms.max_alarm, value.alarm[1]),
    ):
        if limit is None:
            assert text == "Not specified"
        else:
            assert float(text) == limit


_SCALARS = {
    bool: CmdArgType.DevBoolean,
    int: CmdArgType.DevLong64,
    float: CmdArgType.DevDouble,
    str: CmdArgType.DevString,
}


def test_the_status_keys_are_the_same_numbers_as_in_the_commanders_snapshot(bench: DeviceBench) -> None:
    device = bench.connect()
    for command, closed in (("close_all", 1), ("open_all", 0)):
        device.command_inout(command)
        snapshot = json.loads(device.status_json())
        read = {entry.name: entry.value for entry in device.read_attributes(list(status_names()))}
        assert {name: snapshot[name] for name in status_names()} == read
        assert read["TT_state"] == read["HO_state"] == closed
        assert read["configured"] == 1
        assert read["phasemask"] == "H3"
        assert read["frequency"] == 200.0, "the camera server's answer"


def test_spectra_and_images_have_the_sizes_of_the_calibration(bench: DeviceBench) -> None:
    device = bench.connect()
    wait_for(lambda: device.frames > 0, "a frame")
    assert device.e_LO.shape == (2,)
    assert device.e_HO.shape == (SIGNALS,)
    assert device.dm_command.shape == (GRID,)
    assert device.frame.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(device.frame, bench.quiet_frame())
    side = round(GRID**0.5)
    assert device.dm_map.shape == (side, side)
    # Rows and columns are not swapped on the way.
    picture = bench.quiet_frame()
    picture[1, 5] += 7000
    bench.camera.frame = picture
    wait_for(lambda: np.array_equal(device.frame, picture), "the frame with a marked pixel")


def test_counters_and_rates_follow_the_camera(bench: DeviceBench) -> None:
    device = bench.connect()
    written = bench.camera.stream.counter()
    wait_for(lambda: device.frames >= 20, "twenty frames")
    assert device.frames <= bench.camera.stream.counter()
    wait_for(lambda: device.frame_rate > 0, "a frame rate")
    assert device.latency_p50 <= device.latency_p99 <= device.latency_max
    assert written <= bench.camera.stream.counter()


def test_attributes_are_read_while_a_command_waits_for_a_peer(bench: DeviceBench) -> None:
    device, other = bench.connect(), bench.connect()
    bench.mds_peer.hold()
    try:
        waiting = device.command_inout_asynch("send_mds_command", "is_on SBB")
        # No sleep: reads go on until the peer's time-out, one second, ends the command.
        reads = 0
        with pytest.raises(tango.AsynReplyNotArrived):
            device.command_inout_reply(waiting)
        while reads < 20:
            assert other.state() in (DevState.STANDBY, DevState.RUNNING)
            assert other.frames > 0
            reads += 1
        with pytest.raises(tango.AsynReplyNotArrived):
            device.command_inout_reply(waiting)
    finally:
        bench.mds_peer.release()
    assert json.loads(device.command_inout_reply(waiting, 10000))["mds_response"] == "True\n"
