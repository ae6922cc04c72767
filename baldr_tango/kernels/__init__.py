"""Compiled code: everything that must run without the interpreter.

Each function is a plain function on arrays that means the same with ``NUMBA_DISABLE_JIT=1``.
"""
