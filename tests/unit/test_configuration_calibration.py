"""Calibration files: what is read, what is refused, and that what is written can be read."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.configuration.calibration import (
    describe_calibration_keys,
    find_calibration_file,
    load_calibration,
    write_calibration,
)
from baldr_tango.configuration.calibration_checks import parse_table
from baldr_tango.configuration.calibration_table import entries
from baldr_tango.configuration.toml_text import table_text
from baldr_tango.errors import BackendError, ConfigError
from tests.unit.configuration_problem import PIXELS, SIDE, SIGNALS, calibration_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def write(file: Path, table: dict[str, Any], beam: int = 1, mask: str = "H3") -> Path:
    """Write a table unchecked, as any other program might."""
    file.write_text(table_text({f"beam{beam}": {mask: {"ctrl_model": table}}}))
    return file


def arrays(calibration: Any) -> dict[str, np.ndarray]:
    return {
        field.name: getattr(calibration, field.name)
        for field in dataclasses.fields(calibration)
        if isinstance(getattr(calibration, field.name), np.ndarray)
    }


def test_a_table_is_read_as_it_stands(tmp_path):
    table = calibration_table()
    file = write(tmp_path / "c.toml", table)
    calibration = load_calibration(file, 1, "H3")
    for name, array in arrays(calibration).items():
        np.testing.assert_array_equal(array, table[name], err_msg=name)
    assert calibration.I2A.dtype == np.float64
    assert calibration.pupil_pixels.dtype == np.int64
    assert calibration.frame_shape == (SIDE, SIDE)
    assert (calibration.frame_rate_hz, calibration.gain) == (1730.0, 10.0)
    assert calibration.secondary_pixel == 27
    assert calibration.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert calibration.warnings == ()


def test_optional_keys_have_the_legacy_defaults(tmp_path):
    table = {name: value for name, value in calibration_table().items() if entries()[name].required}
    calibration = load_calibration(write(tmp_path / "c.toml", table), 1, "H3")
    assert (calibration.auto_close, calibration.auto_open, calibration.auto_tune) == (0, 1, 0)
    assert calibration.intrn_flx_I0 == 1.0
    assert calibration.open_on_dm_limit == 0.0
    assert calibration.IM is None


REQUIRED = [name for name, declared in entries().items() if declared.required]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_key_is_an_error(tmp_path, name):
    table = calibration_table()
    del table[name]
    file = write(tmp_path / "c.toml", table)
    with pytest.raises(ConfigError) as error:
        load_calibration(file, 1, "H3")
    assert f"{file}: beam1.H3.ctrl_model.{name}: found no such key, expected" in str(error.value)


MATRICES = [name for name, declared in entries().items() if declared.kind in ("matrix", "mask")]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("axis", [0, -1])
def test_a_size_that_does_not_fit_the_others_is_an_error(name, axis):
    table = calibration_table()
    whole = np.asarray(table[name])
    table[name] = np.take(whole, range(whole.shape[axis] - 1), axis=axis)
    with pytest.raises(ConfigError, match=r"f\.toml: beam1\.H3\.ctrl_model\..*found .*expected") as error:
        parse_table(Path("f.toml"), 1, "H3", table)
    if name != "I2A":  # the sizes of I2A are those of all the others
        letters = ", ".join(entries()[name].shape)
        assert f"{name}: found shape" in str(error.value) or name == "I2M_HO"
        assert name == "I2M_HO" or f"= ({letters})" in str(error.value)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_with_its_place(name, value):
    table = calibration_table()
    table[name] = np.array(table[name], dtype=float)
    table[name][(1,) * table[name].ndim] = value
    place = [1] * table[name].ndim
    with pytest.raises(ConfigError, match=rf"{name}: found {value} at \{place}, expected finite numbers"):
        parse_table(Path("f.toml"), 1, "H3", table)


CHANGES: list[tuple[str, Any, str]] = [
    ("I2A", "text", "I2A: found 'text', expected numbers of shape (A, P)"),
    ("I2A", [[1.0, 2.0], [3.0]], "I2A: found rows of different lengths"),
    ("I2A", [["1.0", "2.0"]], "I2A: found entries that are no numbers"),
    ("I2A", [], "I2A: found shape (0,)"),
    ("I2A", [1.0, 2.0], "I2A: found shape (2,), expected rows of numbers"),
    ("LO", 0, "LO: found 0, expected at least 1"),
    ("LO", 3, "found shape"),
    ("LO", "2", "LO: found '2', expected an integer"),
    ("LO", True, "LO: found True, expected an integer"),
    ("sza", 17, "M2C: found shape (16, 14), expected shape (17, 14) = (G, M)"),
    ("szm", 13, "szm: found 13, expected 14"),
    ("szp", 99, "szp: found 99, expected 12"),
    ("controller_type", "pid", "controller_type: found 'pid', expected PID or LEAKY or KALMAN"),
    ("DM_flat", "", "DM_flat: found '', expected a string that is not empty"),
    ("DM_flat", 1, "DM_flat: found 1, expected a string"),
    ("intrn_flx_I0", "1.0", "intrn_flx_I0: found '1.0', expected a number"),
    ("intrn_flx_I0", float("nan"), "intrn_flx_I0: found nan, expected a finite number"),
    ("pupil_pixels", [1, PIXELS], f"pupil_pixels: found {PIXELS}, expected indices from 0 to {PIXELS - 1}"),
    ("bad_pixels", [-1], "bad_pixels: found -1, expected indices"),
    ("bad_pixels", [1.5], "bad_pixels: found 1.5, expected a list of flat pixel indices"),
    ("bad_pixels", [[1, 2]], "bad_pixels: found shape (1, 2)"),
    ("secondary_pixels", [1, 2, 3, 4], "secondary_pixels: found 4 items, expected at least 5"),
    ("pupil", [2] + [0] * (PIXELS - 1), "pupil: found 2.0, expected zeros and ones"),
    ("crop_pixels", [1, 2, 3], "crop_pixels: found shape (3,), expected shape (4,) = (4)"),
    ("camera_config", "fps", "camera_config: found 'fps', expected a table"),
    ("camera_config", {"gain": "1"}, "camera_config.fps: found no such key, expected a positive number"),
    ("camera_config", {"fps": "fast", "gain": "1"}, "camera_config.fps: found 'fast'"),
    ("camera_config", {"fps": "1000", "gain": "0"}, "camera_config.gain: found '0'"),
    ("camera_config", {"fps": "1000", "gain": "nan"}, "camera_config.gain: found 'nan'"),
    ("camera_config", {"fps": "1", "gain": "1", "x": [1]}, "camera_config.x: found [1], expected a string"),
]


@pytest.mark.parametrize(("name", "value", "message"), CHANGES, ids=[message for *_, message in CHANGES])
def test_a_wrong_value_is_an_error(tmp_path, name, value, message):
    file = write(tmp_path / "c.toml", calibration_table() | {name: value})
    with pytest.raises(ConfigError) as error:
        load_calibration(file, 1, "H3")
    assert str(error.value).startswith(f"{file}: beam1.H3.ctrl_model.")
    assert message in str(error.value)


def test_frame_that_is_neither_cropped_nor_square_is_an_error():
    table = calibration_table()
    for name in MATRICES:
        if entries()[name].shape[-1:] == ("P",):
            table[name] = np.asarray(table[name])[..., : PIXELS - 1]
    with pytest.raises(ConfigError, match="crop_pixels: found 8 x 8 pixels, expected 63 pixels"):
        parse_table(Path("f.toml"), 1, "H3", table)


def test_a_frame_may_be_oblong_and_a_wrong_crop_is_told():
    table = calibration_table() | {"crop_pixels": [0, 4, 0, 16]}
    assert parse_table(Path("f.toml"), 1, "H3", table).frame_shape == (4, 16)
    table = calibration_table() | {"crop_pixels": [0, 5, 0, 5]}
    calibration = parse_table(Path("f.toml"), 1, "H3", table)
    assert calibration.frame_shape == (SIDE, SIDE)
    assert "crop_pixels: 5 x 5 pixels, but I2A has 64 columns" in calibration.warnings[0]


def test_legacy_habits_are_understood(tmp_path):
    table = calibration_table() | {
        "telemetry": 0,
        "I2M": [["a"]],
        "camera_config": {"fps": 500, "gain": " 5.0 ", "cropping columns": "1-10"},
    }
    calibration = load_calibration(write(tmp_path / "c.toml", table), 1, "H3")
    assert (calibration.frame_rate_hz, calibration.gain) == (500.0, 5.0)
    assert calibration.camera_config["cropping_columns"] == "1-10"
    assert len(calibration.warnings) == 1
    assert "'cropping columns'" in calibration.warnings[0]


def test_a_flat_list_is_a_column():
    table = calibration_table()
    table |= {
        "LO": 1,
        "M2C": table["M2C"][:, 1:],
        "szm": 1 + SIGNALS,
        "IM": table["IM"][1:],
        "I2M_LO": table["I2M_LO"][:1],
        "M2C_LO": table["M2C_LO"][:, 0].tolist(),
    }
    calibration = parse_table(Path("f.toml"), 1, "H3", table)
    assert calibration.M2C_LO.shape == (16, 1)


def test_a_missing_beam_or_mask_is_an_error_that_says_what_there_is(tmp_path):
    file = write(tmp_path / "c.toml", calibration_table(), beam=2, mask="H5")
    with pytest.raises(ConfigError, match=r"\[beam1\]: found beam2, expected table \[beam1\]"):
        load_calibration(file, 1, "H5")
    with pytest.raises(ConfigError, match=r"\[beam2\.H3\.ctrl_model\]: found masks H5, expected table"):
        load_calibration(file, 2, "H3")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(ConfigError, match="found no beam"):
        load_calibration(tmp_path / "empty.toml", 1, "H3")
    (tmp_path / "odd.toml").write_text("[beam1.H3]\nctrl_model = 1\n[beam1.I2A]\n")
    with pytest.raises(ConfigError, match="found 1, expected a table"):
        load_calibration(tmp_path / "odd.toml", 1, "H3")


def test_only_the_table_asked_for_is_read_and_others_are_told(tmp_path):
    content = {
        "beam1": {"I2A": [["nonsense"]]},
        "beam2": {"H3": {"ctrl_model": calibration_table(1)}, "H5": {"ctrl_model": {"I2A": 1}}},
    }
    (tmp_path / "c.toml").write_text(table_text(content))
    calibration = load_calibration(tmp_path / "c.toml", 2, "H3")
    np.testing.assert_array_equal(calibration.I0, calibration_table(1)["I0"])
    assert "also has beam1" in calibration.warnings[0]


def test_a_directory_is_searched_for_the_greatest_name(tmp_path):
    names = [
        "2025-09-01/baldr_config_1_bright_2025-09-01T08-00-00.toml",
        "a/b/baldr_config_1_bright_2025-09-02T08-00-00.toml",
        "z/baldr_config_1_bright_2025-08-31T08-00-00.toml",
        "z/baldr_config_1_faint_2025-09-09T08-00-00.toml",
        "z/baldr_config_2_bright_2025-09-09T08-00-00.toml",
        "z/baldr_config_1_bright_2025-09-03T08-00-00.toml.bak",
    ]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, calibration_table(number))
    assert find_calibration_file(tmp_path, 1, "bright") == tmp_path / names[1]
    assert load_calibration(tmp_path, 1, "H3").file == tmp_path / names[1]
    assert load_calibration(tmp_path, 1, "H3", mode="faint").file == tmp_path / names[3]
    with pytest.raises(ConfigError, match=r"found no file baldr_config_4_bright_\*\.toml"):
        find_calibration_file(tmp_path, 4, "bright")


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    table = calibration_table() | {"bad_pixels": [7, 3]}
    rng = np.random.default_rng(0)
    table["M2C"] = rng.normal(size=(16, 14)) * 10.0 ** rng.integers(-300, 300, (16, 14))
    table["M2C"][0, :2] = -0.0, 5e-324
    file = write_calibration(
        tmp_path / "new" / "c.toml", table, 3, "J3", comment="measured in a test\nby hand"
    )
    first = load_calibration(file, 3, "J3")
    assert first.M2C.tobytes() == table["M2C"].tobytes()
    again = load_calibration(write_calibration(tmp_path / "d.toml", first, 3, "J3"), 3, "J3")
    for field in dataclasses.fields(first):
        if field.name not in ("file", "sha256"):
            np.testing.assert_equal(
                getattr(again, field.name), getattr(first, field.name), err_msg=field.name
            )
    head = file.read_text().splitlines()[:3]
    assert all(line.startswith("# ") for line in head)
    assert head[1:] == ["# measured in a test", "# by hand"]
    assert [path.name for path in file.parent.iterdir()] == ["c.toml"]


def test_the_legacy_reader_would_accept_what_is_written(tmp_path):
    """The rules of the C++ server: types, flat vectors, rows, camera settings as strings."""
    calibration = parse_table(Path("f.toml"), 1, "H3", calibration_table())
    file = write_calibration(tmp_path / "c.toml", calibration, 1, "H3")
    table = tomllib.loads(file.read_text())["beam1"]["H3"]["ctrl_model"]
    for name in ("DM_flat", "controller_type", "inverse_method_LO", "inverse_method_HO"):
        assert isinstance(table[name], str)
        assert table[name]
    for name in ("bias", "dark", "I0", "N0", "norm_pupil"):
        assert len(table[name]) == PIXELS
        assert all(isinstance(value, float) for value in table[name])
    for name in ("bad_pixel_mask", "pupil", "secondary", "exterior", "inner_pupil_filt", "pupil_pixels"):
        assert all(type(value) is int for value in table[name])
    for name in ("I2A", "I2M_LO", "I2M_HO", "M2C", "M2C_LO", "M2C_HO", "I2rms_sec", "I2rms_ext"):
        assert {len(row) for row in table[name]} == {len(table[name][0])}
        assert all(isinstance(value, float) for row in table[name] for value in row)
    assert len(table["crop_pixels"]) == 4
    assert len(table["secondary_pixels"]) >= 5
    assert (table["LO"], table["sza"], table["szm"], table["szp"]) == (2, 16, 14, 12)
    assert all(isinstance(value, str) and value for value in table["camera_config"].values())
    assert {"fps", "gain"} <= set(table["camera_config"])


def test_other_beams_and_masks_of_the_file_are_kept(tmp_path):
    file = tmp_path / "c.toml"
    kept = {
        "baldr_pupils": {"1": [204, 236, 62, 94]},
        "beam1": {
            "strehl model": {"H3": {"secondary": [["1e-07", "0.0"]], "runs": [{"n": 1}, {"n": 2}]}},
            "pupil_mask": {"mask": [[True, False]], "empty": {}},
        },
    }
    file.write_text(table_text(kept))
    write_calibration(file, calibration_table(1), 1, "H3")
    write_calibration(file, calibration_table(2), 1, "H5")
    write_calibration(file, calibration_table(3), 2, "H3")
    write_calibration(file, calibration_table(4), 1, "H3")
    for beam, mask, seed in ((1, "H3", 4), (1, "H5", 2), (2, "H3", 3)):
        calibration = load_calibration(file, beam, mask)
        np.testing.assert_array_equal(calibration.I0, calibration_table(seed)["I0"])
    content = tomllib.loads(file.read_text())
    assert content["baldr_pupils"] == kept["baldr_pupils"]
    assert content["beam1"]["strehl model"] == kept["beam1"]["strehl model"]
    assert content["beam1"]["pupil_mask"] == kept["beam1"]["pupil_mask"]


def test_nothing_is_written_that_would_not_load(tmp_path):
    table = calibration_table()
    table["I0"][5] = np.nan
    with pytest.raises(ConfigError, match="I0: found nan"):
        write_calibration(tmp_path / "c.toml", table, 1, "H3")
    with pytest.raises(ConfigError, match=r"\.json"):
        write_calibration(tmp_path / "c.json", calibration_table(), 1, "H3")
    (tmp_path / "broken.toml").write_text("[beam1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        write_calibration(tmp_path / "broken.toml", calibration_table(), 1, "H3")
    (tmp_path / "odd.toml").write_text("beam1 = 3")
    with pytest.raises(ConfigError, match="beam1: found 3, expected a table"):
        write_calibration(tmp_path / "odd.toml", calibration_table(), 1, "H3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.toml", "odd.toml"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = write_calibration(tmp_path / "c.toml", calibration_table(1), 1, "H3")
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackendError, match="cannot be written: No space left on device"):
        write_calibration(file, calibration_table(2), 1, "H3")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_the_manual_rows_are_complete():
    rows = describe_calibration_keys()
    assert [row.key for row in rows] == list(entries())
    assert all(row.doc.endswith(".") for row in rows)
    assert {row.key for row in rows if row.default == "required"} == set(REQUIRED)
