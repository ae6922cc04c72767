"""Families of mirror shapes on the DM grid: zonal, zernike, hadamard, two of Fourier, Karhunen-Loeve."""

from baldr_tango.bases.basis import NAMES, Basis, basis, find_basis
from baldr_tango.bases.files import load_bases, write_bases

__all__ = ["NAMES", "Basis", "basis", "find_basis", "load_bases", "write_bases"]
