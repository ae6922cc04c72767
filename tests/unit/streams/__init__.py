"""Streams on real shared memory."""
