"""Measurements of the product beside their goals: ``python -m benchmarks``, or ``make bench``."""
