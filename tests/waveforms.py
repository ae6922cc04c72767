"""The injected signal, written from its definition and independently of the kernels."""

from __future__ import annotations

import math

from baldr_tango.beam.injection_settings import InjectionSettings


def shift_register(seed: int, n: int) -> list[int]:
    """First n bits of the 31-bit sequence, from its recurrence ``b[m] = b[m-31] xor b[m-28]``."""
    bits = [seed >> (30 - i) & 1 for i in range(31)]
    for m in range(31, 31 + n):
        bits.append(bits[m - 31] ^ bits[m - 28])
    return bits[31:]


def expected(s: InjectionSettings, n: int, rate_hz: float) -> float:
    """Signal in the n-th frame after arming, 0 the first."""
    k = n - s.latency_frames
    first = math.ceil(round(s.t_start_s * rate_hz, 6))
    if k < first or (s.t_stop_s > 0 and k > math.floor(round(s.t_stop_s * rate_hz, 6))):
        return 0.0
    step = (k - first) // s.hold_frames
    t = step * s.hold_frames / rate_hz
    phase = math.radians(s.phase_deg)
    if s.waveform == "sine":
        return s.amplitude * math.sin(2 * math.pi * s.freq_hz * t + phase)
    if s.waveform == "square":
        return s.amplitude if round(t * s.freq_hz + s.phase_deg / 360, 7) % 1 < s.duty else 0.0
    if s.waveform == "step":
        return s.amplitude
    if s.waveform == "chirp":
        u = min(t, s.chirp_T)
        rate = (s.chirp_f1 - s.chirp_f0) / s.chirp_T
        return s.amplitude * math.sin(2 * math.pi * (s.chirp_f0 * u + rate * u * u / 2) + phase)
    if s.waveform == "prbs":
        bit = shift_register(s.prbs_seed & 0x7FFFFFFF or 0xACE1, step + 1)[-1]
        return s.amplitude if bit else -s.amplitude
    return 0.0
