"""Where the calibration files of the instrument are, for the tests that can use them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("BALDR_SHARED") or Path(__file__).parents[2] / "shared")
FILES = {1: SHARED / "data" / "baldr_config_1.toml", 2: SHARED / "data" / "baldr_config_2_stable.toml"}

needs_files = pytest.mark.skipif(
    not all(file.is_file() for file in FILES.values()),
    reason=f"no calibration files of the instrument in {SHARED / 'data'} ($BALDR_SHARED)",
)
"""Mark of a test that needs them: it is skipped, visibly, where they are not."""

needs_real_data = [pytest.mark.real_data, needs_files]
"""The same for a whole module."""
