"""Telemetry: the ring that the loop fills, the thread that writes it to disk and the reader of its files."""
