"""The runtime file: what it may say, what it may not, and what follows for one beam."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import sys
from pathlib import Path

import pytest
import tomli_w

from baldr_tango.configuration.runtime import (
    TABLES,
    ControlSettings,
    describe_runtime_keys,
    load_runtime,
    shipped_config,
)
from baldr_tango.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def write(directory: Path, content: object, name: str = "baldr.toml") -> Path:
    """Write a runtime file: TOML text, or a mapping as TOML or JSON by the suffix."""
    file = directory / name
    if name.endswith(".json"):
        file.write_text(json.dumps(content))
    else:
        file.write_text(content if isinstance(content, str) else tomli_w.dumps(content))
    return file


def test_an_empty_file_gives_the_defaults(tmp_path):
    config = load_runtime(write(tmp_path, ""), state=tmp_path)
    assert config.beams == (1, 2, 3, 4)
    assert config.control_lo == ControlSettings()
    assert config.simulator.mask_depth_rad == pytest.approx(math.pi / 2)
    assert config.limits.command == 0.4


def test_the_shipped_file_says_every_default_and_nothing_else(tmp_path):
    file = shipped_config("baldr.toml")
    said = {(table, key) for table, keys in tomllib.loads(file.read_text()).items() for key in keys}
    assert said == {(row.table, row.key) for row in describe_runtime_keys()}
    shipped, empty = load_runtime(file, state=tmp_path), load_runtime(write(tmp_path, ""), state=tmp_path)
    for table in TABLES:
        assert getattr(shipped, table) == getattr(empty, table), table


def test_every_shipped_file_loads(tmp_path):
    for file in shipped_config().parent.glob("*.toml"):
        config = load_runtime(file, state=tmp_path)
        for beam in config.beams:
            assert config.for_beam(beam).beam == beam


def test_the_manual_rows_are_complete():
    rows = describe_runtime_keys()
    assert len({(row.table, row.key) for row in rows}) == len(rows)
    for row in rows:
        assert row.doc.endswith("."), row
        assert row.type, row
        written = tomllib.loads(f"x = {row.default}")["x"]
        default = {field.name: field.default for field in dataclasses.fields(TABLES[row.table])}[row.key]
        assert (list(default) if isinstance(default, tuple) else default) == (
            Path(written) if isinstance(default, Path) else written
        )


WRONG = [
    ("[loops]", "loops", "unknown table", "'loop'"),
    ("[loop]\nboxcat = 2", "loop.boxcat", "unknown key", "'boxcar'"),
    ("[beam.2]\nmaks = 'H5'", "beam.2.maks", "unknown key", "'mask'"),
    ("[beam.2.control_ho]\nk = 1", "beam.2.control_ho.k", "unknown key", "'k"),
    ("loop = 3", "[loop]", "found 3", "expected a table"),
    ("beam = 3", "[beam]", "found 3", "expected tables"),
    ("[beam.5]\nmask = 'H5'", "[beam.5]", "found '5'", "1 to 4"),
    ("[beam.x]\nmask = 'H5'", "[beam.x]", "found 'x'", "1 to 4"),
    ("[beam]\n1 = 2", "[beam.1]", "found 2", "expected a table"),
    ("[loop]\nboxcar = 0", "loop.boxcar", "found 0", ">= 1"),
    ("[loop]\nboxcar = 1.0", "loop.boxcar", "found 1.0", "expected integer"),
    ("[loop]\nboxcar = true", "loop.boxcar", "found True", "expected integer"),
    ("[loop]\nboxcar = '1'", "loop.boxcar", "found '1'", "expected integer"),
    ("[loop]\nbad_pixels = 'mean'", "loop.bad_pixels", "found 'mean'", "'neighbours' or 'median'"),
    ("[loop]\nwavelength_nm = 0", "loop.wavelength_nm", "found 0", "> 0"),
    ("[loop]\nwavelength_nm = nan", "loop.wavelength_nm", "found nan", "expected number"),
    ("[loop]\npedestal_adu = inf", "loop.pedestal_adu", "found inf", "expected number"),
    ("[loop]\npedestal_adu = 1e999", "loop.pedestal_adu", "found inf", "expected number"),
    (f"[loop]\npedestal_adu = {10**400}", "loop.pedestal_adu", "found 1000", "expected number"),
    ("[realtime]\npriority = 100", "realtime.priority", "found 100", "<= 99"),
    ("[realtime]\nlock_memory = 1", "realtime.lock_memory", "found 1", "expected boolean"),
    ("[realtime]\ncpus = [0, -1]", "realtime.cpus[1]", "found -1", ">= 0"),
    ("[realtime]\ncpus = 0", "realtime.cpus", "found 0", "expected list of integers"),
    ("[instrument]\nbeams = []", "instrument.beams", "found 0 items", "1 to 4 items"),
    ("[instrument]\nbeams = [1, 1]", "instrument.beams", "found [1, 1]", "each beam once"),
    ("[instrument]\nbeams = [5]", "instrument.beams[0]", "found 5", "<= 4"),
    ("[instrument]\nbeams = ['1']", "instrument.beams[0]", "found '1'", "list of integers"),
    ("[instrument]\ntango_prefix = 'baldr'", "instrument.tango_prefix", "'baldr'", "<domain>/<family>"),
    ("[instrument]\nstate = ''", "instrument.state", "found ''", "path"),
    ("[instrument]\nstate = '{state}/x'", "instrument.state", "{state}", "{config}"),
    ("[streams]\ncamera = 'b{baem}'", "streams.camera", "b{baem}", "{beam}"),
    ("[streams]\ncamera = 'b{beam'", "streams.camera", "b{beam", "{beam}"),
    ("[streams]\ncamera = 'a/b{beam}'", "streams.camera", "a/b", "a stream name"),
    ("[streams]\ncamera = 'baldr'", "[streams]", "stream 'baldr' 4 times", "use {beam}"),
    ("[streams]\ndm_combined = 'dm{beam}disp02'", "[streams]", "stream 'dm1disp02' 2 times", "another name"),
    ("[endpoints]\ncamera = '127.0.0.1:6667'", "endpoints.camera", "found '127", "tcp://"),
    ("[endpoints]\ncommander_first_port = 65533", "endpoints.commander_first_port", "65533", "<= 65532"),
    ("[calibration]\nfile = '{mask}.toml'", "calibration.file", "{mask}", "{beam}"),
    ("[calibration]\nmode = 'dark'", "calibration.mode", "found 'dark'", "'bright' or 'faint'"),
    ("[control_lo]\nki = 'x'", "control_lo.ki", "found 'x'", "number or list of numbers"),
    ("[control_lo]\nki = [0.1, 'x']", "control_lo.ki[1]", "found 'x'", "number or list of numbers"),
    ("[control_lo]\nki = [0.1, nan]", "control_lo.ki[1]", "found nan", "number or list of numbers"),
    (
        "[control_lo]\nki = [1, 2]\nkp = [1, 2, 3]",
        "[control_lo]",
        "kp has 3, ki has 2",
        "lists of one length",
    ),
    ("[control_lo]\nlower = 3", "control_lo.lower", "found 3", "less than upper = 2.0"),
    ("[control_lo]\nlower = [-1, 2]", "control_lo.lower", "found", "less than upper"),
    ("[control_lo]\nleak = 1.1", "control_lo.leak", "found 1.1", "<= 1"),
    ("[beam.1.control_lo]\nlower = 3", "beam.1.control_lo.lower", "found 3", "less than upper"),
    ("[telemetry]\nfields = ['flux', 'flux']", "telemetry.fields", "flux", "each field once"),
    (
        "[simulator]\nvibration_hz = [50]",
        "simulator.vibration_nm",
        "found 0 items",
        "1 (one per vibration_hz)",
    ),
    ("[simulator]\nrate_hz = 0", "simulator.rate_hz", "found 0", "linear"),
    ("[simulator]\nplant = 'real'", "simulator.plant", "found 'real'", "'optical' or 'linear'"),
    ("[loop\n", "baldr.toml", "not valid TOML", "line 1"),
]


@pytest.mark.parametrize(("text", "key", "found", "expected"), WRONG, ids=[text for text, *_ in WRONG])
def test_an_error_names_file_key_found_and_expected(tmp_path, text, key, found, expected):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_runtime(file)
    for part in (str(file), key, found, expected):
        assert part in str(error.value)


def test_a_missing_file_and_a_file_that_is_no_text_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_runtime(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_runtime(tmp_path / "binary.toml")


def test_json_says_the_same_as_toml(tmp_path):
    content = {"instrument": {"beams": [2]}, "control_lo": {"ki": [0.1, 0.2]}, "beam": {"2": {"mask": "H5"}}}
    toml = load_runtime(write(tmp_path, content))
    text = load_runtime(write(tmp_path, content, "baldr.json"))
    assert toml.for_beam(2).mask == text.for_beam(2).mask == "H5"
    assert dataclasses.replace(text, file=toml.file, sha256=toml.sha256) == toml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"loop": {"boxcar": NaN}}', "loop.boxcar: found nan"),
        ('{"loop": {"boxcar": 1, "boxcar": 2}}', "'boxcar' stands twice"),
        ('{"loop": {"boxcar": null}}', "loop.boxcar: found None"),
        ("[1]", "expected a JSON object"),
        ("{", "not valid JSON"),
    ],
)
def test_json_is_as_strict(tmp_path, text, expected):
    file = tmp_path / "baldr.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load_runtime(file)


def test_paths_are_resolved_for_each_beam(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    content = {
        "instrument": {"state": "~/baldr"},
        "streams": {"directory": "{state}/shm"},
        "calibration": {"file": "files/../c{beam}.toml"},
        "telemetry": {"directory": "{config}/t{beam}"},
    }
    settings = load_runtime(write(tmp_path, content)).for_beam(3)
    assert settings.state == tmp_path / "home" / "baldr"
    assert settings.streams.directory == str(tmp_path / "home" / "baldr" / "shm")
    assert settings.calibration_file == tmp_path / "c3.toml"
    assert settings.telemetry.directory == tmp_path / "t3"
    elsewhere = load_runtime(tmp_path / "baldr.toml", state=tmp_path / "other").for_beam(3)
    assert elsewhere.streams.directory == str(tmp_path / "other" / "shm")


def test_an_unknown_home_directory_is_an_error(tmp_path):
    file = write(tmp_path, "[telemetry]\ndirectory = '~nobody-of-that-name/x'")
    with pytest.raises(ConfigError, match="nobody-of-that-name"):
        load_runtime(file)


def test_a_relative_file_name_is_the_same_file(tmp_path, monkeypatch):
    write(tmp_path, "[calibration]\nfile = 'c.toml'")
    monkeypatch.chdir(tmp_path)
    config = load_runtime("baldr.toml")
    assert config.file == tmp_path / "baldr.toml"
    assert config.for_beam(1).calibration_file == tmp_path / "c.toml"


def test_names_of_a_beam(tmp_path):
    content = {
        "instrument": {"tango_prefix": "test/sim"},
        "streams": {"camera": "x_{beam}", "dm_command": "y_{beam}"},
        "endpoints": {"commander_host": "127.0.0.2", "commander_first_port": 7000},
    }
    settings = load_runtime(write(tmp_path, content)).for_beam(4)
    assert settings.tango_device == "test/sim/4"
    assert (settings.streams.camera, settings.streams.dm_command) == ("x_4", "y_4")
    assert settings.streams.dm_combined == "dm4"
    assert settings.commander_endpoint == "tcp://127.0.0.2:7003"


def test_one_beam_may_differ(tmp_path):
    content = {
        "calibration": {"mask": "H1"},
        "control_ho": {"ki": 0.2, "kp": 0.1},
        "beam": {"2": {"mask": "H5", "control_ho": {"ki": 0.05}, "realtime": {"cpus": [3]}}},
    }
    config = load_runtime(write(tmp_path, content))
    first, second = config.for_beam(1), config.for_beam(2)
    assert (first.mask, second.mask) == ("H1", "H5")
    assert (first.control_ho.ki, second.control_ho.ki) == (0.2, 0.05)
    assert second.control_ho.kp == 0.1
    assert (first.realtime.cpus, second.realtime.cpus) == ((), (3,))


def test_a_beam_that_the_instrument_does_not_have_is_an_error(tmp_path):
    config = load_runtime(write(tmp_path, "[instrument]\nbeams = [1, 3]"))
    with pytest.raises(ConfigError, match=r"found 2, expected one of \[1, 3\]"):
        config.for_beam(2)


def test_a_file_is_read_once_and_its_hash_is_of_the_same_bytes(tmp_path, monkeypatch):
    file = write(tmp_path, "[loop]\nboxcar = 3")
    reads = []
    read_bytes = Path.read_bytes

    def counted(path):
        reads.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    config = load_runtime(file)
    assert reads == [file]
    assert config.sha256 == hashlib.sha256(read_bytes(file)).hexdigest()
    assert config.for_beam(1).runtime_sha256 == config.sha256
    assert reads == [file]


def test_loading_again_sees_a_changed_file_and_else_gives_the_same(tmp_path):
    file = write(tmp_path, "[loop]\nboxcar = 3")
    first = load_runtime(file)
    assert load_runtime(file) == first
    write(tmp_path, "[loop]\nboxcar = 4")
    assert load_runtime(file).loop.boxcar == 4


def test_a_name_that_is_not_shipped_is_an_error():
    with pytest.raises(ConfigError, match=r"none\.toml: not shipped"):
        shipped_config("none.toml")
