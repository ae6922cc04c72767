"""Baldr: Zernike-wavefront-sensor adaptive optics of ASGARD at the VLTI."""

__version__ = "0.1.0"
