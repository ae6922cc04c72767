"""The instrument's basis file: axes, corners, errors, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.bases import NAMES, Basis, basis, files, load_bases, write_bases
from baldr_tango.errors import BackendError, ConfigError
from baldr_tango.names import ACTUATOR_INDEX, CORNERS

fits = pytest.importorskip("astropy.io.fits")


def instrument_file(path, shapes: dict[str, np.ndarray]):
    """Write a file as the instrument has it: float32, numpy element [x, y, k].

    shapes : (modes, 12, 12) rows and columns.
    """
    units = [fits.PrimaryHDU()]
    units[0].header["NMODES"] = 140
    for key, maps in shapes.items():
        data = np.empty((12, 12, len(maps)), np.float32)
        for k, image in enumerate(maps):
            for y in range(12):
                for x in range(12):
                    data[x, y, k] = image[y, x]
        unit = fits.ImageHDU(data, name=f"BASIS:{key}")
        unit.header["NMODES"] = len(maps)
        units.append(unit)
    fits.HDUList(units).writeto(path)
    return path


def test_tip_stays_tip(tmp_path):
    tip = np.tile(np.arange(12.0) - 5.5, (12, 1))
    ramp = np.arange(144.0).reshape(12, 12)
    path = instrument_file(tmp_path / "b.fits", {"Zernike": np.stack([tip, tip.T, ramp])})
    found = load_bases(path)
    assert list(found) == ["zernike"]
    clear = np.ones(144)
    clear[list(CORNERS)] = 0.0
    for k, expected in enumerate((tip, tip.T, ramp)):
        np.testing.assert_array_equal(found["zernike"].mode(k), expected.reshape(-1) * clear)


def test_zonal_modes_of_the_file_poke_their_own_actuator(tmp_path):
    maps = np.zeros((140, 12, 12))
    for k, index in enumerate(ACTUATOR_INDEX):
        maps[k, index // 12, index % 12] = 1.0
    found = load_bases(instrument_file(tmp_path / "b.fits", {"zonal": maps}))["zonal"]
    np.testing.assert_array_equal(found.modes, basis("zonal").modes)


def test_axes_in_the_file_are_the_instruments(tmp_path):
    path = write_bases(tmp_path / "b.fits", [basis("zonal"), basis("kl")])
    with fits.open(path) as file:
        unit = file["BASIS:zonal"]
        assert [unit.header[key] for key in ("BITPIX", "NAXIS1", "NAXIS2", "NAXIS3")] == [-32, 140, 12, 12]
        assert unit.header["NMODES"] == 140
        assert file["BASIS:KL"].header["NMODES"] == 139
        assert file[0].header["NX"] == file[0].header["NY"] == 12
        # actuator 0 is row 0, column 1
        assert unit.data[1, 0, 0] == 1.0
        assert unit.data[0, 1, 0] == 0.0


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "b.fits"
    path.write_bytes(b"something older")
    write_bases(path, [basis(name) for name in NAMES])
    found = load_bases(str(path))
    assert tuple(found) == NAMES
    for name in NAMES:
        np.testing.assert_allclose(found[name].modes, basis(name).modes, atol=1e-7)
    assert [file.name for file in tmp_path.iterdir()] == ["b.fits"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("length", [140, 144])
def test_flat_modes_are_taken_too(tmp_path, length, turned):
    modes = np.zeros((7, 144))
    modes[:, ACTUATOR_INDEX] = np.random.default_rng(1).normal(size=(7, 140))
    data = modes if length == 144 else modes[:, ACTUATOR_INDEX]
    unit = fits.ImageHDU(data.T if turned else data, name="BASIS:own")
    unit.header["NMODES"] = 7
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(tmp_path / "b.fits")
    np.testing.assert_array_equal(load_bases(tmp_path / "b.fits")["own"].modes, modes)


def test_cubes_of_images_are_taken_too(tmp_path):
    images = np.random.default_rng(2).normal(size=(5, 12, 12))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(images, name="BASIS:own")]).writeto(tmp_path / "b.fits")
    found = load_bases(tmp_path / "b.fits")["own"]
    np.testing.assert_array_equal(found.modes[:, ACTUATOR_INDEX], images.reshape(5, 144)[:, ACTUATOR_INDEX])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.zeros((11, 12, 5)), r"found shape \(11, 12, 5\).*\(12, 12, modes\)"),
        (np.zeros(144), r"found shape \(144,\)"),
        (np.full((12, 12, 3), np.nan), "not finite"),
    ],
)
def test_a_wrong_extension_is_named(tmp_path, data, text):
    path = tmp_path / "b.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="BASIS:own")]).writeto(path)
    with pytest.raises(ConfigError, match=f"{path}: BASIS:own.*{text}"):
        load_bases(path)


def test_a_count_of_modes_that_does_not_fit_is_refused(tmp_path):
    unit = fits.ImageHDU(np.zeros((12, 12, 5)), name="BASIS:own")
    unit.header["NMODES"] = 6
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(tmp_path / "b.fits")
    with pytest.raises(ConfigError, match="NMODES = 6"):
        load_bases(tmp_path / "b.fits")


def test_a_file_without_bases_is_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "b.fits")
    with pytest.raises(ConfigError, match="no extension BASIS:"):
        load_bases(tmp_path / "b.fits")


@pytest.mark.parametrize("content", [None, b"", b"no FITS at all" * 300])
def test_an_unreadable_file_is_refused(tmp_path, content):
    path = tmp_path / "b.fits"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        load_bases(path)


def test_a_directory_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(BackendError, match="cannot be written"):
        write_bases(tmp_path / "no" / "b.fits", [basis("zonal")])


def test_without_astropy_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "astropy.io.fits", None)
    with pytest.raises(BackendError, match=r"baldr-tango\[fits\]"):
        files.load_bases(tmp_path / "b.fits")


def test_maps_of_another_size_are_no_basis():
    with pytest.raises(ValueError, match=r"\(modes, 144\), found \(2, 140\)"):
        Basis("own", np.zeros((2, 140)))
