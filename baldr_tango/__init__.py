"""Baldr: Zernike-wavefront-sensor adaptive optics of ASGARD at the VLTI."""

import os

__version__ = "0.1.0"

# Before anything imports numpy. Its BLAS threads would compete with the real-time threads for the cores, and
# the matrices here are too small to gain by them: four beams judge their calibrations in 0.4 s, not in 8 s.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
