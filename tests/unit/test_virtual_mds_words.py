"""Words of the virtual MDS beside lamps and moves: tables of mask places in files, the rest of the bench."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import zmq

from baldr_tango.configuration.runtime import load_runtime
from baldr_tango.configuration.shipped import shipped_config
from baldr_tango.simulator.quirks import Quirks
from legacy_zmq.instrument import ControlServers
from legacy_zmq.virtual_mds import MASKS, VirtualMds
from tests.virtual_controls import RecordedInstrument

if TYPE_CHECKING:
    from baldr_tango.simulator.instrument import VirtualInstrument

Ask = Callable[[str], str]


class Configured(RecordedInstrument):
    """With habits, none of which is switched on."""

    quirks = Quirks()


@pytest.fixture
def instrument() -> RecordedInstrument:
    return RecordedInstrument()


@pytest.fixture
def ask(instrument: RecordedInstrument, tmp_path: Path) -> Ask:
    server = VirtualMds(instrument, directory=tmp_path)

    def answer(text: str) -> str:
        reply = server.answer(text.encode()).decode()
        assert reply.endswith("\n")
        return reply[:-1]

    return answer


@pytest.fixture
def socket(instrument: RecordedInstrument, tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    anywhere = "tcp://127.0.0.1:0"
    with (
        ControlServers(instrument, camera=anywhere, mds=anywhere, directory=tmp_path) as servers,
        zmq.Context() as context,
        context.socket(zmq.REQ) as found,
    ):
        found.setsockopt(zmq.LINGER, 0)
        found.setsockopt(zmq.RCVTIMEO, 10000)
        found.connect(servers.mds.endpoint)
        yield found


def place(ask: Ask, beam: int) -> list[float]:
    return [float(ask(f"read BM{axis}{beam}")) for axis in "XY"]


def written(ask: Ask, beam: int) -> list[Path]:
    """Return the files of a beam, where the MDS says that they are."""
    directory = Path(ask(f"fpm_getsavepath phasemask{beam}"))
    return sorted(directory.glob(f"beam{beam}/*"))


def write(path: Path, table: object) -> str:
    path.write_text(json.dumps(table))
    return str(path)


def test_over_the_wire_a_table_goes_to_a_file_and_comes_back(
    socket: zmq.Socket[bytes], tmp_path: Path
) -> None:
    def ask(text: str) -> str:
        socket.send_string(text)
        return socket.recv_string().removesuffix("\n")

    assert ask("fpm_getsavepath phasemask2") == str(tmp_path / "phasemask_positions")
    old = place(ask, 2)
    ask("moverel BMX2 30.0")
    assert ask("fpm_updatemaskpos phasemask2 H3") == "ACK"
    before = datetime.now().replace(microsecond=0)
    assert ask("fpm_writemaskpos phasemask2") == "ACK"
    (file,) = written(ask, 2)
    time = datetime.strptime(file.name, "phase_positions_beam2_%Y-%m-%dT%H-%M-%S.json")
    assert before <= time <= before + timedelta(hours=1)
    table = json.loads(file.read_text())
    assert tuple(table) == MASKS
    assert table["H3"] == [old[0] + 30.0, old[1]]
    ask("fpm_offsetallmaskpositions phasemask2 500.0 0.0")
    assert ask(f"fpm_update_position_file phasemask2 {file.name}") == "ACK"
    ask("fpm_movetomask phasemask2 J1")
    assert place(ask, 2) == table["J1"]
    assert written(ask, 1) == []


def test_files_are_in_the_state_directory(tmp_path: Path) -> None:
    """The servers are not started: nobody listens at the endpoints of the runtime file."""
    config = load_runtime(shipped_config("baldr.toml"), state=tmp_path)
    servers = ControlServers.of(cast("VirtualInstrument", Configured()), config)
    reply = servers.mds_model.answer(b"fpm_getsavepath phasemask1")
    assert reply.decode() == f"{tmp_path}/phasemask_positions\n"


def test_a_file_of_the_instrument_is_taken(ask: Ask, instrument: RecordedInstrument, tmp_path: Path) -> None:
    table = {mask: [4000.0 + 300 * k, 7000 - 250 * k] for k, mask in enumerate(MASKS)}
    name = write(tmp_path / "phase_positions_beam3_2025-07-11T15-04-05.json", table | {"SHUTTER": [0, 0]})
    assert ask(f"fpm_update_position_file phasemask3 {name}") == "ACK"
    assert instrument.masks == {1: "H3", 2: "H3", 3: "", 4: "H3"}
    ask("fpm_movetomask phasemask3 J5")
    assert place(ask, 3) == table["J5"]
    assert instrument.masks[3] == "J5"


def test_distances_of_a_file_go_from_the_mask_that_is_in_the_beam(ask: Ask, tmp_path: Path) -> None:
    table = {mask: [10.0 * k, 1000.0 - 200.0 * k] for k, mask in enumerate(MASKS)}
    name = write(tmp_path / "reference.json", table)
    ask("moveabs BMX1 5000.0")
    ask("moveabs BMY1 6000.0")
    assert ask(f"fpm_updateallmaskpos phasemask1 H2 {name}") == "ACK"
    assert place(ask, 1) == [5000.0, 6000.0]
    for k, mask in enumerate(MASKS):
        ask(f"fpm_movetomask phasemask1 {mask}")
        steps = k - MASKS.index("H2")
        assert place(ask, 1) == [5000.0 + 10.0 * steps, 6000.0 - 200.0 * steps]
    assert written(ask, 1) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table | {"H3": [1.0]},
        lambda table: table | {"H3": [1.0, float("nan")]},
        lambda table: table | {"H3": [1.0, True]},
        lambda table: table | {"H3": [10**400, 0]},
        lambda table: table | {"H3": "here"},
        lambda table: {mask: table[mask] for mask in table if mask != "H3"},
        lambda table: list(table),
        None,
    ],
)
def test_a_wrong_file_leaves_the_table_as_it_was(
    ask: Ask, tmp_path: Path, change: Callable[[dict[str, list[float]]], object] | None
) -> None:
    path = tmp_path / "wrong.json"
    if change is not None:
        write(path, change({mask: [1.0, 2.0] for mask in MASKS}))
    for words in ("fpm_update_position_file phasemask2", "fpm_updateallmaskpos phasemask2 J1"):
        reply = ask(f"{words} {path}")
        assert reply.startswith("NACK: ")
        assert str(path) in reply
    ask("fpm_writemaskpos phasemask2")
    ask("fpm_writemaskpos phasemask1")
    assert json.loads(written(ask, 2)[0].read_text()) == json.loads(written(ask, 1)[0].read_text())


def test_a_directory_that_cannot_be_written_is_told(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "phasemask_positions").write_text("in the way")
    reply = ask("fpm_writemaskpos phasemask2")
    assert reply.startswith("NACK: ")
    assert "phasemask_positions" in reply
    assert ask("fpm_update_position_file phasemask2 any.json").startswith("NACK: ")


def test_a_state_is_saved_once_under_its_name(ask: Ask, tmp_path: Path) -> None:
    ask("moveabs BTT3 0.25")
    ask("moveabs BMX2 1234.5")
    assert ask("save Baldr tonight") == "ACK: saved"
    states = json.loads((tmp_path / "instr_states" / "tonight.json").read_text())
    positions = {state["name"]: state["position"] for state in states}
    assert (positions["BTT3"], positions["BMX2"], positions["BOTP2"]) == (0.25, 1234.5, 0.0)
    assert {name[0] for name in positions} == {"B"}
    assert all(state["is_connected"] for state in states)
    assert ask("save all tonight") == "NACK: File already exists, please choose a different name."
    assert ask("save solarstein sun") == "ACK: saved"
    assert ask("save moon tonight").startswith("NACK: Invalid subset, must be 'heimdallr',")
    for name in ("../tonight", "/tmp/tonight", ".hidden"):
        assert ask(f"save all {name}").startswith("NACK: file")
    assert len(list((tmp_path / "instr_states").iterdir())) == 2


def test_devices_that_frames_do_not_show_keep_their_positions(ask: Ask) -> None:
    assert ask("moveabs BTT3 0.25") == "ACK"
    assert ask("moverel BTT3 -0.5") == "ACK"
    assert ask("read BTT3") == "-0.25"
    assert "-0.75 to 0.75 deg" in ask("moverel BTT3 -0.6")
    assert ask("read BTT3") == "-0.25"
    assert ask("moveabs BLF1 1.0") == "ACK"
    assert ask("moveabs BLF1 0.5") == "NACK: Invalid position for bistable motor BLF1"
    assert ask("moverel BLF1 -1.0").startswith("NACK: Relative movement not implemented")
    assert ask("read BLF1") == "1"
    axes = {entry["axis"]: entry for entry in json.loads(ask("health"))}
    assert axes["BMX2"] == {
        "axis": "BMX2",
        "motor_type": "LAC10A-T4A",
        "is_connected": True,
        "state": "READY",
    }
    assert axes["BOTT4"]["motor_type"] == "M100D"
    assert "BOTT1" not in axes


@pytest.mark.parametrize(
    ("words", "axis", "position"),
    [
        ("BLF2 NAME FAINT", "BLF2", "1"),
        ("BLF2 ENC 1", "BLF2", "1"),
        ("BTT2 ENC 250", "BTT2", "0.25"),
        ("BTT2 ENCREL -250.0", "BTT2", "-0.25"),
        ("BTT2 NAME anything", "BTT2", "0"),
        ("BFO ENC 1200", "BFO", "1200"),
        ("BDS1 ENC 12500", "BDS1", "12.5"),
        ("BMX2 ENC 1500", "BMX2", "1500"),
        ("SBB ST T", "BFO", "5000"),
    ],
)
def test_one_device_is_set_up_in_units_of_eso(ask: Ask, words: str, axis: str, position: str) -> None:
    assert ask(f"asg_setup {words}") == "ACK"
    assert ask(f"read {axis}") == position


def test_lamp_and_mask_axis_are_set_up_by_name(ask: Ask, instrument: RecordedInstrument) -> None:
    assert ask("asg_setup SBB ST F") == "ACK"
    assert not instrument.lamp
    ask("fpm_movetomask phasemask1 J2")
    assert ask("asg_setup BMX2 NAME J2") == ask("asg_setup BMY2 NAME J2") == "ACK"
    assert place(ask, 2) == place(ask, 1)
    assert instrument.masks[2] == "J2"


def test_a_shut_beam_of_heimdallr_does_not_move(ask: Ask) -> None:
    assert ask("h_shut close 2,3") == ""
    assert ask("state HTPP2") == "READY SHUTTERED"
    assert ask("moverel HTPP2 0.1") == "NACK: Cannot move motor HTPP2 to 0.1 as it is shuttered"
    assert ask("tt_step HTPP3 5").startswith("NACK: ")
    assert (ask("moverel HTPP1 0.1"), ask("moverel BTT2 0.1")) == ("ACK", "ACK")
    assert ask("h_shut open all") == ""
    assert ask("state HTPP2") == "READY"
    assert ask("tt_step HTPP3 5") == ""


def test_as_many_temperatures_as_keys(ask: Ask) -> None:
    keys = ask("temp_status keys")
    assert re.fullmatch(r"\[Lower T,Upper T,Bench T,Floor T,Lower m_pin_val,.*,Upper k_int\]", keys)
    assert len(ast.literal_eval(ask("temp_status now"))) == len(keys.split(","))


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("mv_img baldr 2 0.5 -0.5", "ACK: moved"),
        ("mv_pup c_red_one_focus 1 0.5 0.0", "ACK: moved"),
        ("mv_pup baldr 1 0.5 0.0", "NACK: 'BOTP1'"),
        ("mv_pup baldr 5 0.5 0.0", "NACK: beam_number must be in the range [1, 4]"),
        (
            "mv_img heimdallr 1 0.5 0.0",
            "NACK: config must be 'c_red_one_focus' or 'intermediate_focus' or 'baldr'",
        ),
        ("h_shut ajar all", "NACK: Invalid state for h_shut, must be 'open' or 'close'"),
        ("h_shut close 5", "NACK: 5"),
        ("h_splay on", ""),
        ("h_splay wide", "NACK: state must be 'on' or 'off'"),
        ("home_steppers all", ""),
        ("standby BMX2", ""),
        ("standby BTT2", "ACK"),
        ("standby XYZ", "NACK"),
        ("online BMX2,BMY2", ""),
        ("tt_step HTPP1 100", ""),
        ("tt_config_step HTPP1 20", ""),
        ("tt_step BTT1 100", "NACK: BTT1 is not a valid tip-tilt stage"),
        ("tt_step HTXX1 100", "NACK: HTXX1 not found in instrument"),
        ("set_kaya on", "ACK"),
        ("set_kaya maybe", "NACK: Invalid state for set_kaya, must be 'on' or 'off'"),
        ("dmapplyflat DM2", "ACK: Flat map applied to DM2"),
        ("dmapplycross DM2", "ACK: Cross map applied to  DM2"),
        ("dmapplyflat DM9", "NACK: DM DM9 not found"),
        ("temp_status then", "NACK: Invalid mode for temp_status, must be 'now' or 'keys'"),
        ("asg_setup XYZ ENC 1.0", "NACK: 'XYZ'"),
        ("fpm_getsavepath phasemask9", "NACK: 'phasemask9'"),
        ("fpm_writemaskpos BMX2", "NACK: 'BMX2'"),
        ("fpm_updateallmaskpos phasemask2 H9 any.json", "NACK: 'H9'"),
    ],
)
def test_replies_are_those_of_the_real_server(ask: Ask, text: str, reply: str) -> None:
    assert ask(text) == reply


@pytest.mark.parametrize("text", ["mv_img baldr 2 1 0", "mv_img baldr 2 1.0", "save all", "h_shut close"])
def test_words_that_do_not_fit_the_template_find_no_match(ask: Ask, text: str) -> None:
    assert "argument after * must be an iterable" in ask(text)


def test_the_manual_lists_the_words(instrument: RecordedInstrument) -> None:
    page = (Path(__file__).parents[2] / "docs" / "virtual_servers.md").read_text("utf-8")
    section = page.partition("## Words of the MDS")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {word for row in rows for word in re.findall(r"`([a-z_?]+)`", row)} == set(
        VirtualMds(instrument).words
    )
