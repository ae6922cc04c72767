"""Calibration procedures: measure an instrument through its streams and write its calibration files."""
