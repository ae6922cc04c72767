"""A small calibration for tests: 8x8 pixels, a 4x4 DM map without corners, 2 low-order modes."""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE = 8
PIXELS = SIDE * SIDE
GRID = 16
CORNERS = [0, 3, 12, 15]
ACTUATORS = [k for k in range(GRID) if k not in CORNERS]
SIGNALS = len(ACTUATORS)


def calibration_table(seed: int = 3) -> dict[str, Any]:
    """Content of a table ``[beamN.<mask>.ctrl_model]`` without any fault, of the present generation."""
    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(PIXELS), SIDE)
    radius = np.hypot(rows - 3.5, columns - 3.5)
    pupil = (radius < 3).astype(int)
    inner = (radius < 2).astype(int)
    ring = ((radius >= 3) & (radius < 4)).astype(int)
    clear = 1000.0 * pupil + rng.uniform(0, 20, PIXELS)
    reference = 800.0 * pupil + 300.0 * ring + rng.uniform(0, 20, PIXELS)

    interpolation = np.zeros((SIGNALS, PIXELS))
    for signal, actuator in enumerate(ACTUATORS):
        row, column = 1 + actuator // 4, 1 + actuator % 4
        for dr, wr in ((0, 0.6), (1, 0.4)):
            for dc, wc in ((0, 0.3), (1, 0.7)):
                interpolation[signal, (row + dr) * SIDE + column + dc] = wr * wc
    pokes = np.diag(rng.uniform(2, 4, SIGNALS)) + rng.normal(0, 0.1, (SIGNALS, SIGNALS))
    tip_tilt = np.zeros((GRID, 2))
    y, x = np.divmod(np.arange(GRID), 4)
    tip_tilt[ACTUATORS, 0] = (x[ACTUATORS] - 1.5) / 1.5
    tip_tilt[ACTUATORS, 1] = (y[ACTUATORS] - 1.5) / 1.5
    zonal = np.zeros((GRID, SIGNALS))
    zonal[ACTUATORS, np.arange(SIGNALS)] = 1.0
    low_order = tip_tilt[ACTUATORS].T @ pokes
    return {
        "build_method": "double-sided-poke",
        "DM_flat": "baldr",
        "signal_space": "dm",
        "LO": 2,
        "controller_type": "PID",
        "inverse_method_LO": "pinv",
        "inverse_method_HO": "zonal",
        "bias": np.zeros(PIXELS),
        "dark": rng.uniform(995, 1005, PIXELS),
        "I0": reference / reference.sum(),
        "N0": clear,
        "norm_pupil": np.full(PIXELS, 1000.0 / clear.sum()) * rng.uniform(0.9, 1.1, PIXELS),
        "I2A": interpolation,
        "I2M_LO": np.linalg.pinv(low_order).T,
        "I2M_HO": np.diag(1 / np.diag(pokes)),
        "M2C": np.hstack([tip_tilt, zonal]),
        "M2C_LO": tip_tilt,
        "M2C_HO": zonal,
        "IM": np.vstack([low_order, pokes]),
        "poke_amp": 0.05,
        "I2rms_sec": np.diag([2.5e-6, -0.05]),
        "I2rms_ext": np.diag([1.5e-6, -0.02]),
        "crop_pixels": [10, 10 + SIDE, 40, 40 + SIDE],
        "pupil_pixels": np.flatnonzero(pupil),
        "interior_pixels": np.flatnonzero(inner),
        "secondary_pixels": [18, 19, 20, 26, 27, 28, 34, 35, 36],
        "exterior_pixels": np.flatnonzero(ring),
        "bad_pixels": [],
        "bad_pixel_mask": np.ones(PIXELS, dtype=int),
        "pupil": pupil,
        "secondary": np.zeros(PIXELS, dtype=int),
        "exterior": ring,
        "inner_pupil_filt": inner,
        "sza": GRID,
        "szm": 2 + SIGNALS,
        "szp": SIGNALS,
        "auto_close": 0,
        "auto_open": 1,
        "auto_tune": 0,
        "intrn_flx_I0": 5.0e4,
        "close_on_strehl_limit": 10,
        "open_on_strehl_limit": 0,
        "open_on_flux_limit": 0,
        "open_on_dm_limit": 0.3,
        "LO_offload_limit": 1,
        "camera_config": {"fps": "1730.0", "gain": "10.0", "mode": "globalresetcds", "aduoffset": "1000"},
    }
