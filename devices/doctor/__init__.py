"""Examines a machine: what is good, what could be better and what has to change before a loop is closed."""
