"""Configuration: the runtime file, calibration files, and the parameters derived from both."""
