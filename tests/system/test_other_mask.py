"""The whole product behind another phase mask than the usual one: calibrated and closed with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import tango

from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.errors import ConfigError
from baldr_tango.simulator.truth import TruthReader
from tests.harness import LONG_S, wait_for
from tests.system.product import Product, running_product

pytestmark = pytest.mark.system

FRAMES = 800


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("product"), beams=(1,), mask="H5") as running:
        yield running


def test_the_calibration_is_one_of_the_mask_that_was_in(product: Product) -> None:
    file = product.config.for_beam(1).calibration_file
    calibration = load_calibration(file, 1, "H5")
    with pytest.raises(ConfigError, match="H3"):
        load_calibration(file, 1, "H3")
    # A dot of 31 um in place of 44 um takes less of the core: the dip on the axis side of the pupil is
    # that of b = 1 - J0(pi d / 2) and a quarter wave, I = 1 - 2 b (1 - b) over the clear pupil.
    b = 1.0 - float(np.cos(np.pi * 1.06 * 31 / 44 / 2 * np.sin((np.arange(400) + 0.5) * np.pi / 400)).mean())
    side = np.hypot(*np.meshgrid(*(2 * [np.arange(32) - 15.5]))).ravel()
    inner = (side > 1.6) & (side < 3.0)
    clear = np.asarray(calibration.N0, dtype=float).ravel()
    masked = np.asarray(calibration.I0, dtype=float).ravel() * float(calibration.intrn_flx_I0)
    ratio = float(masked[inner].sum() / clear[inner].sum())
    assert ratio == pytest.approx(1.0 - 2.0 * b * (1.0 - b), abs=0.08)


def test_loops_close_behind_it_and_the_wavefront_is_better(product: Product) -> None:
    device = product.device()
    assert json.loads(device.status_json())["phasemask"] == "H5"
    simulator = tango.DeviceProxy(
        f"tango://{product.deployment.tango_host}/{product.config.instrument.tango_prefix}/simulator"
    )
    assert simulator.mask_1 == "H5"
    streams = product.config.for_beam(1).streams

    def error_nm() -> float:
        with TruthReader(streams.camera, streams.directory or None) as truth:
            start = device.frames
            wait_for(lambda: device.frames > start + FRAMES, LONG_S, f"{FRAMES} frames")
            return float(truth.means().opd_rms_nm)

    assert (device.TT_state, device.HO_state) == (1, 1)
    closed_nm = error_nm()
    assert (device.TT_state, device.HO_state) == (1, 1)
    device.open_all()
    assert closed_nm < 0.8 * error_nm()
