"""Probing sequences: replies as ever, samples that show the shape, files, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.commands import execute
from baldr_tango.errors import RequestError, StateError
from baldr_tango.names import ACTUATOR_INDEX, LoopState
from legacy_zmq.protocol import reply
from tests.virtual_beam import VirtualBeam

fits = pytest.importorskip("astropy.io.fits")


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBeam]:
    with VirtualBeam(tmp_path_factory.mktemp("beam")) as virtual:
        yield virtual


def told(virtual: VirtualBeam, request: str) -> Any:
    """Reply of the commander."""
    return json.loads(reply(request, partial(execute, virtual.beam)))


def test_the_replies_are_those_of_old(virtual: VirtualBeam) -> None:
    assert told(virtual, 'build_probe_args_for_method "TT_OL_img"') == [
        [[0, 0.03], [0, -0.03], [1, 0.03], [1, -0.03]],
        "zonal",
        "OL",
        "img",
        10,
        5000,
    ]
    for request, error in (
        ('build_probe_args_for_method "nope"', "Unknown probe method: nope"),
        ('run_probe_method ["nope"]', "Unknown probe method: nope"),
        ("probe_interaction_data 5", "bad args"),
        ('probe_interaction_data [[[0]],"zonal","OL","img",3]', "each aberration must be [idx,amp]"),
        ('probe_interaction_data [[[0,0.01]],"zonal","open","img",3]', "Invalid state (use 'OL' or 'CL')"),
        ('probe_interaction_data [[[140,0.01]],"zonal","OL","img",3]', "index out of range"),
        ('probe_interaction_data [[[0,0.01]],"zonal","OL","imag",3]', "unknown field"),
    ):
        answer = told(virtual, request)
        assert answer["ok"] is False
        assert answer["error"] == error
    methods = {name: told(virtual, f'build_probe_args_for_method "{name}"') for name in ("IM_CL", "method_1")}
    assert len(methods["IM_CL"][0]) == 280
    assert methods["IM_CL"][1:] == ["zonal", "CL", "img", 8, 5000]
    assert methods["method_1"] == [[[65, 0.1], [2, -0.1]], "zonal", "OL", "all", 3, 5000]


def test_samples_show_the_shape_that_they_are_filed_under(virtual: VirtualBeam) -> None:
    answer = told(
        virtual, 'probe_interaction_data [[[65,0.01],[65,-0.01],[70,0.01]],"zonal","OL","signal",6]'
    )
    assert {key: answer[key] for key in ("N", "basis", "state", "field", "n_probes", "mode", "ok")} == {
        "N": 6,
        "basis": "zonal",
        "state": "OL",
        "field": "signal",
        "n_probes": 3,
        "mode": "single-field",
        "ok": True,
    }
    matrix = virtual.calibration.IM
    assert matrix is not None
    for probe, (actuator, amplitude) in zip(
        answer["probes"], ((65, 0.01), (65, -0.01), (70, 0.01)), strict=True
    ):
        assert (probe["index"], probe["amplitude"]) == (actuator, amplitude)
        samples = np.array(probe["samples"])
        assert samples.shape == (6, 140)
        expected = amplitude * matrix[2 + actuator]
        # Every single frame shows it: none was taken before the mirror had moved, which would be wrong by
        # 100 % or more. The sensor is not linear: at 70 nm it answers 10 % off its slope.
        for sample in samples:
            assert np.linalg.norm(sample - expected) < 0.3 * np.linalg.norm(expected)
    virtual.wait_frames(3)
    assert not virtual.command().any()


def test_a_closed_loop_steers_to_the_shape_and_back(virtual: VirtualBeam) -> None:
    request = '{"aberrations":[[65,0.003]],"basis":"zonal","state":"CL","field":["command","e_HO"],"N":20}'
    answer = told(virtual, f"probe_interaction_data {request}")
    assert answer["ok"] is False
    assert "high-order loop closed" in answer["error"]
    virtual.beam.set_loops(ho=LoopState.CLOSED, force=True)
    virtual.wait_frames(300)
    rest = virtual.loop.arrays.ring.newest("command")[ACTUATOR_INDEX]
    answer = told(virtual, f"probe_interaction_data {request}")
    assert answer["ok"], answer
    assert answer["mode"] == "multi-field"
    with fits.open(answer["outfile"]) as units:
        command = units["COMMAND"].data.reshape(144, 20).T
        moved = command.mean(axis=0)[ACTUATOR_INDEX] - rest
    p = virtual.loop.parameters
    matrix = virtual.calibration.IM
    assert matrix is not None
    # Leaky integrators at rest: u (1 - a) = a k (e - set point), with e = R D c of the command c = -S u.
    g = p.control_ho.leak * p.control_ho.ki / (1.0 - p.control_ho.leak)
    gain = p.mode_shapes_ho[ACTUATOR_INDEX] * g
    closed = np.eye(140) + gain @ p.reconstructor_ho @ matrix[2:].T
    expected = np.linalg.solve(closed, gain[:, 65] * 0.003)
    assert np.linalg.norm(moved - expected) < 0.1 * np.linalg.norm(expected)
    assert not virtual.loop.slots.current("set_point_ho").any()
    with pytest.raises(StateError, match="high-order loop open"):
        virtual.ask("run_probe_method", "I2A")
    virtual.beam.set_loops(ho=LoopState.OPEN)


def test_a_method_fills_the_legacy_table(virtual: VirtualBeam, tmp_path: Path) -> None:
    answer = told(virtual, f'run_probe_method ["I2A","{tmp_path}"]')
    assert answer["ok"], answer
    assert {key: answer[key] for key in ("N", "basis", "field", "method", "n_probes", "state")} == {
        "N": 4,
        "basis": "zonal",
        "field": "img",
        "method": "I2A",
        "n_probes": 8,
        "state": "OL",
    }
    assert Path(answer["path"]).parent == tmp_path
    with fits.open(answer["path"]) as units:
        table = units["PROBES"]
        assert table.columns.names == ["IDX", "AMP", "VLEN", "NSAMP", "DATA"]
        assert table.data["IDX"].tolist() == [50, 50, 53, 53, 86, 86, 89, 89]
        assert table.data["AMP"].tolist() == [0.04, -0.04] * 4
        assert set(table.data["VLEN"]) == {1024}
        assert set(table.data["NSAMP"]) == {4}
        assert table.header["FPSRAW"] == 1000.0
        frames = table.data["DATA"].reshape(8, 4, 1024).mean(axis=1)
    places = virtual.calibration.I2A
    for row, actuator in enumerate((50, 53, 86, 89)):
        change = np.abs(frames[2 * row] - frames[2 * row + 1])
        pixel = int(np.argmax(change))
        assert places[actuator, pixel] > 0, "the brightest change is not at the actuator"


def test_all_fields_of_all_probes_are_in_the_file(virtual: VirtualBeam, tmp_path: Path) -> None:
    answer = virtual.ask("run_probe_method", "method_1", str(tmp_path / "all.fits"))
    assert answer["mode"] == "multi-field"
    assert "timestamp" in answer["fields"]
    with fits.open(tmp_path / "all.fits") as units:
        assert units[0].header["FIELDS"] == "all"
        image = units["SIGNAL"]
        assert (image.header["NSTEP"], image.header["NCOLS"]) == (6, 140)
        signal = image.data.reshape(140, 6).T
        assert units["PROBES"].data["FIRST"].tolist() == [0, 3]
        # Actuator 65 is in the pupil, actuator 2 is not.
        assert np.linalg.norm(signal[:3].mean(axis=0)) > 5 * np.linalg.norm(signal[3:].mean(axis=0))
        times = units["TIMESTAMP"].data.ravel()
        assert np.all(np.diff(times) > 0)
    with pytest.raises(RequestError, match="nothing is overwritten"):
        virtual.ask("run_probe_method", "method_1", str(tmp_path / "all.fits"))


def test_a_shape_beyond_the_limit_is_refused_and_the_loop_goes_on(virtual: VirtualBeam) -> None:
    with pytest.raises(RequestError, match="DM units"):
        virtual.ask("probe_interaction_data", [[10, 0.01], [11, 0.6]], "zonal", "OL", "img", 3)
    virtual.wait_frames(3)
    assert not virtual.command().any()
    with pytest.raises(RequestError, match="MB"):
        virtual.ask("probe_interaction_data", [[10, 0.01]] * 100, "zonal", "OL", "all", 1000000)
