"""Injection of a signal into the mirror command or the set points."""

from __future__ import annotations

from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.beam.injection_settings import InjectionSettings
from baldr_tango.commands import forms
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json

LARGEST_AMPLITUDE: Final = 0.30
"""Amplitude that tt_inj goes down to when more is asked for [DM units]."""

METHODS: Final[dict[str, dict[str, Any]]] = {
    "chirp": {"chirp_f0": 0.5, "chirp_f1": 400.0, "chirp_T": 60.0},
    "prbs": {"hold_frames": 2},
    "sine": {"freq_hz": 10.0},
}
"""What tt_inj sets for each of its methods."""

_ALIASES: Final = {"index": "basis_index", "method": "waveform"}


@beam_command()
def tt_inj(beam: Beam, method: Any = None, amplitude: Any = None, apply_to: Any = None) -> dict[str, Json]:
    """Inject a signal into tip: chirp (0.5 to 400 Hz in 60 s), prbs (2 frames per step) or sine (10 Hz).

    Also with an object, {"method","amplitude","apply_to"} and, for another mode than zernike 0, which is tip,
    {"basis","index"}: zernike 1 is tilt, m2c_lo 0 the first mode of the loop in its own scale. The map is
    split into the tip/tilt modes; "off" ends the injection.

    Parameters
    ----------
    method : chirp, prbs, sine or off
    amplitude : factor of the mode's map, in DM units, brought into 0 to 0.3
    apply_to : setpoint (of the closed loop) or command (added to the mirror whatever the loops do)
    """
    keys = ("method", "amplitude", "apply_to", "basis", "index")
    given = forms.named((method, amplitude, apply_to), keys, 0)
    wanted = str(given.get("method", "chirp")).strip().lower()
    if wanted in ("off", "none"):
        beam.injection.switch_off()
        return {"ok": True, "method": "off", "branch": "LO", "enabled": False}
    form = "prbs" if wanted == "probs" else wanted
    size = min(max(forms.number("amplitude", given.get("amplitude", 0.02)), 0.0), LARGEST_AMPLITUDE)
    target = str(given.get("apply_to", "setpoint")).strip().lower()
    if form not in METHODS:
        raise RequestError(
            f"unknown method {wanted!r}; there are {', '.join(METHODS)}, off",
            method=wanted,
            amplitude=size,
            apply_to=target,
            branch="LO",
        )
    beam.injection.put(
        InjectionSettings(
            enabled=True,
            basis=given.get("basis", "zernike"),
            basis_index=forms.integer("index", given.get("index", 0)),
            amplitude=size,
            waveform=form,
            branch="LO",
            apply_to=target,
            prbs_seed=int(beam.injection.get("prbs_seed")),
            **METHODS[form],
        )
    )
    return {"ok": True, "method": form, "amplitude": size, "apply_to": target, "branch": "LO"}


@beam_command()
def inject(beam: Beam, settings: Any) -> dict[str, Json]:
    """Inject a signal: one object says all of it, keys that are left out have their defaults.

    {"waveform":"prbs","branch":"LO","basis":"zernike","index":0,"amplitude":0.02,"apply_to":"command"}. Other
    keys: freq_hz, phase_deg, duty (sine, square), chirp_f0, chirp_f1, chirp_T, prbs_seed, hold_frames,
    latency_frames, t_start_s, t_stop_s. The bases are those of ol_set_mode; the amplitude is the factor of
    the mode's map. The reply shows every value, and the largest motion of the mirror.

    Parameters
    ----------
    settings : object with these keys; waveform is required: sine, square, step, chirp, prbs or none
    """
    if not isinstance(settings, dict):
        raise RequestError(f'inject: found {settings!r}, expected an object such as {{"waveform":"sine"}}')
    given: dict[str, Any] = {_ALIASES.get(key, str(key)): value for key, value in settings.items()}
    if "waveform" not in given:
        raise RequestError("inject: waveform is missing: sine, square, step, chirp, prbs or none")
    wanted = InjectionSettings().changed({"enabled": True, **given})
    beam.injection.put(wanted)
    return {"ok": True, **wanted.as_dict(), "peak": beam.injection.peak(wanted)}


@beam_command()
def inject_off(beam: Beam) -> dict[str, Json]:
    """End the injection; set points and mirror are as without it from the next frame on."""
    beam.injection.switch_off()
    return {"ok": True, "enabled": False}
