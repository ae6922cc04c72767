"""``baldr calibrate`` never costs a calibration."""

from __future__ import annotations

import os
from pathlib import Path

from devices.cli.calibrate import keep_previous


def test_the_present_calibration_is_kept_under_its_date(tmp_path: Path) -> None:
    file = tmp_path / "baldr_config_1.toml"
    assert keep_previous(file) is None
    file.write_text("old")
    os.utime(file, (1_700_000_000, 1_700_000_000))
    kept = keep_previous(file)
    assert kept == tmp_path / "baldr_config_1_2023-11-14T22-13-20.toml"
    assert kept.read_text() == "old"
    assert keep_previous(file) == kept
    file.write_text("new")
    other = keep_previous(file)
    assert other is not None
    assert (kept.read_text(), other.read_text()) == ("old", "new")
