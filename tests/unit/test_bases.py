"""Mirror shapes: normalisation, orthogonality, and what the literature says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from baldr_tango.bases import NAMES, Basis, basis, find_basis, fourier, hadamard, kolmogorov, zernike
from baldr_tango.errors import RequestError
from baldr_tango.names import ACTUATOR_INDEX, CORNERS, N_ACTUATORS

ALL = pytest.mark.parametrize("name", NAMES)
COLUMN, ROW = np.meshgrid(np.arange(12), np.arange(12))


def slope(image: np.ndarray, place: np.ndarray) -> float:
    """Mean change of a map per step along the columns or the rows; the corners do not count."""
    on = np.ones((12, 12), bool)
    on.reshape(-1)[list(CORNERS)] = False
    return float(np.polyfit(place[on], image[on], 1)[0])


@ALL
def test_maps_have_144_points_and_nothing_at_the_corners(name):
    found = basis(name)
    assert found.modes.shape == ({"kl": 139}.get(name, 140), 144)
    assert not found.modes[:, list(CORNERS)].any()
    assert np.isfinite(found.modes).all()
    assert np.linalg.norm(found.modes, axis=1).min() > 0.1, "a mode without a shape"
    assert found.image(3).reshape(-1).tobytes() == found.mode(3).tobytes()


@ALL
def test_no_mode_is_piston(name):
    on = basis(name).modes[:, ACTUATOR_INDEX]
    assert on.std(axis=1).min() > 1e-3 * np.abs(on).max()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("zonal", "hadamard")])
def test_modes_have_unit_norm(name):
    np.testing.assert_allclose(np.linalg.norm(basis(name).modes, axis=1), 1.0, rtol=1e-12)


def test_names_are_looked_up_in_any_case():
    assert basis("Zernike") is basis("zernike") is find_basis("ZERNIKE", {})
    own = Basis("zernike", np.ones((2, 144)))
    assert find_basis("Zernike", {"ZERNIKE": own}) is own, "what was loaded comes first"


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(RequestError, match=r"'eigen'.*zonal, zernike, hadamard.*kl"):
        basis("eigen")


@pytest.mark.parametrize("index", [-1, 140])
def test_a_mode_that_does_not_exist_is_refused(index):
    with pytest.raises(RequestError, match=f"mode {index} .*0 to 139"):
        basis("zonal").mode(index)


def test_a_basis_cannot_be_changed_by_who_uses_it():
    with pytest.raises(ValueError, match="read-only"):
        basis("zonal").mode(0)[5] = 1.0


def test_zonal_mode_k_is_actuator_k():
    modes = basis("zonal").modes
    for k, (row, column) in {
        0: (0, 1),
        9: (0, 10),
        10: (1, 0),
        50: (4, 4),
        53: (4, 7),
        139: (11, 10),
    }.items():
        expected = np.zeros((12, 12))
        expected[row, column] = 1.0
        np.testing.assert_array_equal(modes[k].reshape(12, 12), expected)
    np.testing.assert_array_equal(modes[:, ACTUATOR_INDEX], np.eye(N_ACTUATORS))


def test_zernike_indices_are_nolls_table():
    """Noll 1976, table I: radial degree n, azimuthal frequency m; even j cosine, odd j sine."""
    table = {1: (0, 0), 2: (1, 1), 3: (1, -1), 4: (2, 0), 5: (2, -2), 6: (2, 2), 7: (3, -1), 8: (3, 1)}
    table |= {9: (3, -3), 10: (3, 3), 11: (4, 0), 12: (4, 2), 13: (4, -2), 14: (4, 4), 15: (4, -4)}
    table |= {16: (5, 1), 17: (5, -1), 20: (5, 5), 21: (5, -5), 22: (6, 0)}
    assert {j: zernike.noll(j) for j in table} == table
    for j in range(1, 142):
        n, m = zernike.noll(j)
        assert n * (n + 1) // 2 < j <= (n + 1) * (n + 2) // 2
        assert abs(m) <= n
        assert (n - abs(m)) % 2 == 0
        assert m >= 0 if j % 2 == 0 else m <= 0


@pytest.mark.parametrize(
    ("j", "expected"),
    [
        (2, lambda r, t: 2 * r * np.cos(t)),
        (3, lambda r, t: 2 * r * np.sin(t)),
        (4, lambda r, t: math.sqrt(3) * (2 * r**2 - 1)),
        (5, lambda r, t: math.sqrt(6) * r**2 * np.sin(2 * t)),
        (6, lambda r, t: math.sqrt(6) * r**2 * np.cos(2 * t)),
        (7, lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(t)),
        (8, lambda r, t: math.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(t)),
        (9, lambda r, t: math.sqrt(8) * r**3 * np.sin(3 * t)),
        (11, lambda r, t: math.sqrt(5) * (6 * r**4 - 6 * r**2 + 1)),
        (22, lambda r, t: math.sqrt(7) * (20 * r**6 - 30 * r**4 + 12 * r**2 - 1)),
    ],
)
def test_zernike_polynomials_are_those_of_the_literature(j, expected):
    rng = np.random.default_rng(j)
    r, t = rng.uniform(0, 1, 50), rng.uniform(-np.pi, np.pi, 50)
    np.testing.assert_allclose(
        zernike.polynomial(j, r * np.cos(t), r * np.sin(t)), expected(r, t), atol=1e-12
    )


def test_zernike_polynomials_are_orthonormal_over_the_disc():
    """Gauss-Legendre in the radius, equal steps in the angle: exact for polynomials of this degree."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    radius, angle = (nodes + 1) / 2, 2 * np.pi * np.arange(80) / 80
    r, t = np.meshgrid(radius, angle, indexing="ij")
    weight = np.repeat((weights / 2 * 2 * radius)[:, None] / 80, 80, axis=1)
    values = np.stack([zernike.polynomial(j, r * np.cos(t), r * np.sin(t)) for j in range(1, 37)])
    gram = np.einsum("iab,jab,ab->ij", values, values, weight)
    np.testing.assert_allclose(gram, np.eye(36), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "tip", "tilt"),
    [("zernike", 0, 1), ("kl", 0, 1), ("fourier_10x10", 1, 0), ("fourier_12x12", 1, 0)],
)
def test_tip_goes_along_the_columns_and_tilt_along_the_rows(name, tip, tilt):
    found = basis(name)
    for index, along, across in ((tip, COLUMN, ROW), (tilt, ROW, COLUMN)):
        assert slope(found.image(index), along) > 0.01
        assert abs(slope(found.image(index), across)) < 1e-12
    np.testing.assert_allclose(found.image(tip), found.image(tilt).T, atol=1e-12)


def test_zernike_modes_end_at_the_circle_of_12_actuators():
    outside = np.hypot(ROW - 5.5, COLUMN - 5.5) > 5.5
    modes = basis("zernike").modes.reshape(-1, 12, 12)
    assert not modes[:, outside].any()
    inside = basis("zernike").image(0)[~outside]
    expected = (COLUMN - 5.5)[~outside]
    np.testing.assert_allclose(inside, expected / np.linalg.norm(expected), atol=1e-12)


def test_hadamard_matrices_are_orthogonal_signs():
    for matrix in (hadamard.order_12(), hadamard.full()):
        order = matrix.shape[0]
        assert set(np.unique(matrix)) == {-1.0, 1.0}
        np.testing.assert_array_equal(matrix @ matrix.T, order * np.eye(order))
        assert (matrix[0] == 1).all()
        assert (matrix[:, 0] == 1).all()


def test_hadamard_modes_lose_only_their_corners():
    modes, full = basis("hadamard").modes, hadamard.full()[1:141]
    on = modes[:, ACTUATOR_INDEX]
    assert set(np.unique(on)) == {-1.0, 1.0}
    np.testing.assert_array_equal(on, full[:, ACTUATOR_INDEX])
    corners = full[:, list(CORNERS)]
    np.testing.assert_array_equal(on @ on.T, 144 * np.eye(140) - corners @ corners.T)


def test_fourier_modes_are_products_of_waves_of_period_24():
    """Written down mode by mode: constant, then sine and cosine of 1, 2, ... half waves per mirror."""
    x = np.linspace(-6, 6, 12)
    waves = [np.ones(12)]
    for order in range(1, 7):
        waves += [np.sin(2 * np.pi * order / 24 * x), np.cos(2 * np.pi * order / 24 * x)]
    pairs = fourier.order_of_modes()
    assert pairs[:5] == [(0, 1), (1, 0), (0, 2), (2, 0), (0, 3)]
    assert len(pairs) == len(set(pairs)) == 143
    modes = basis("fourier_12x12").modes.reshape(-1, 12, 12)
    for k, (along_columns, along_rows) in enumerate(pairs[:140]):
        product = np.outer(waves[along_rows], waves[along_columns])
        product -= product.mean()
        product.reshape(-1)[list(CORNERS)] = 0.0
        np.testing.assert_allclose(modes[k], product / np.linalg.norm(product), atol=1e-12)


def test_fourier_10x10_pins_the_edge_to_its_neighbours():
    modes = basis("fourier_10x10").modes.reshape(-1, 12, 12)
    inner = modes[:, 1:11, 1:11]
    for edge, neighbour in (
        (modes[:, 0, 1:11], inner[:, 0]),
        (modes[:, 11, 1:11], inner[:, -1]),
        (modes[:, 1:11, 0], inner[:, :, 0]),
        (modes[:, 1:11, 11], inner[:, :, -1]),
    ):
        np.testing.assert_array_equal(edge, neighbour)
    np.testing.assert_allclose(inner.mean(axis=(1, 2)), 0.0, atol=1e-12)
    x = np.linspace(-6, 6, 10)
    first = np.sin(2 * np.pi / 24 * x)
    np.testing.assert_allclose(
        inner[1] / inner[1, 0, 0], np.tile(first / first[0], (10, 1)), rtol=1e-9, err_msg="mode 1"
    )


def piston_removed_covariance() -> np.ndarray:
    """E[(phi_i - mean)(phi_j - mean)] from the structure function, term by term."""
    place = np.array([divmod(int(i), 12) for i in ACTUATOR_INDEX], float)
    n = len(place)
    d = np.array([[6.88 * math.dist(a, b) ** (5 / 3) for b in place] for a in place])
    to_mean = d.sum(axis=1) / n
    return np.array(
        [[-0.5 * d[i, j] + 0.5 * to_mean[i] + 0.5 * to_mean[j] - 0.5 * d.sum() / n**2 for j in range(n)]
         for i in range(n)]
    )  # fmt: skip


def test_kl_modes_diagonalise_the_covariance_of_kolmogorov_turbulence():
    modes = basis("kl").modes[:, ACTUATOR_INDEX]
    variances = kolmogorov.decompose()[0]
    np.testing.assert_allclose(modes @ modes.T, np.eye(139), atol=1e-10)
    np.testing.assert_allclose(modes.sum(axis=1), 0.0, atol=1e-10)
    covariance = piston_removed_covariance()
    np.testing.assert_allclose(modes @ covariance @ modes.T, np.diag(variances), atol=1e-8 * variances[0])
    assert np.all(np.diff(variances) <= 1e-9 * variances[:-1])
    assert variances[-1] > 0
    assert variances.sum() == pytest.approx(np.trace(covariance), rel=1e-10), "piston holds no variance"


def test_kl_variances_agree_with_noll():
    """Noll 1976, table IV: 1.030 (D/r0)^(5/3) without piston; Zernike modes 2 to J leave the rest.

    Karhunen-Loeve modes leave a little less than as many Zernike modes, and the mirror is no disc.
    """
    variances = kolmogorov.decompose()[0]
    diameter = 2 * math.sqrt(N_ACTUATORS / math.pi)
    assert variances.sum() / N_ACTUATORS == pytest.approx(1.030 * diameter ** (5 / 3), rel=0.05)
    for last, left in {3: 0.134, 6: 0.0648, 11: 0.0377, 21: 0.0208}.items():
        assert 0.75 < variances[last - 1 :].sum() / variances.sum() / (left / 1.030) < 1.02


def test_kl_modes_are_even_or_odd_along_both_axes():
    images = basis("kl").modes.reshape(-1, 12, 12)
    for flipped in (images[:, :, ::-1], images[:, ::-1, :]):
        parity = np.einsum("kab,kab->k", images, flipped)
        np.testing.assert_allclose(np.abs(parity), 1.0, atol=1e-9)
