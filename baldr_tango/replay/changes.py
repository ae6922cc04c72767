"""Other gains and limits for a replay: keys of the runtime file, in place of what was in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from baldr_tango.configuration.document import absolute, read_document
from baldr_tango.configuration.kalman import default_model
from baldr_tango.configuration.runtime import TABLES, load_runtime
from baldr_tango.configuration.schema import Found, check_table, fault
from baldr_tango.configuration.toml_reading import parse_toml
from baldr_tango.errors import ConfigError, RequestError
from baldr_tango.kernels import loop_data as d
from baldr_tango.replay.recording import Arrays
from baldr_tango.rtc.arrays import CONTROLLER_TYPES

_GAINS: Final = ("kp", "ki", "kd", "leak", "lower", "upper")
_SWITCHES: Final = {
    "limits.ho_violations": d.HO_VIOLATIONS,
    "limits.wrong_pixels": d.WRONG_PIXELS,
    "limits.frozen_frames": d.FROZEN_FRAMES,
    "limits.runaway": d.RUNAWAY_LEVEL,
    "limits.write_failures": d.WRITE_FAILURES,
    "loop.boxcar": d.BOXCAR,
    "loop.snr_frames": d.SNR_FRAMES,
    "control_lo.type": d.TYPE_LO,
    "control_ho.type": d.TYPE_HO,
}
_LIMITS: Final = {
    "limits.command": d.COMMAND_LIMIT,
    "limits.lo_command": d.LO_LIMIT,
    "limits.ho_mode": d.HO_LIMIT,
    "limits.min_flux_adu": d.FLUX_LIMIT,
    "limits.saturation_adu": d.SATURATION,
    "limits.negative_adu": d.NEGATIVE,
    "limits.command_rms": d.COMMAND_RMS,
    "loop.nm_per_dm_unit": d.NM_PER_UNIT,
    "loop.wavelength_nm": d.WAVELENGTH_NM,
}
CHANGEABLE: Final = (
    *(f"control_{loop}.{name}" for loop in ("lo", "ho") for name in _GAINS),
    *_SWITCHES,
    *_LIMITS,
)
"""Keys of the runtime file that a replay can change; the others describe the instrument and its light."""


@dataclass(frozen=True)
class Changes:
    """Keys of the runtime file by ``table.key``, with their values; empty: the replay is exact.

    What is changed stays as given during the whole replay: changes of it that were recorded are passed over.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self, base: Arrays) -> Overrides:
        """Lay the values out as arrays.

        base : all arrays of the parameters at the beginning

        Raises
        ------
        ConfigError : a list of gains does not have one value per mode.
        """
        switches = {column: self.values[key] for key, column in _SWITCHES.items() if key in self.values}
        for column in (d.TYPE_LO, d.TYPE_HO):
            if column in switches:
                switches[column] = CONTROLLER_TYPES[switches[column]]
        limits = {column: self.values[key] for key, column in _LIMITS.items() if key in self.values}
        members: Arrays = {}
        for loop in ("lo", "ho"):
            for name in _GAINS:
                if f"control_{loop}.{name}" in self.values:
                    members[f"{name}_{loop}"] = self._per_mode(
                        f"control_{loop}.{name}", base[f"kp_{loop}"].size
                    )
            # As when a configuration is loaded: gain and leak make the model of a regulator, too.
            if f"ki_{loop}" in members or f"leak_{loop}" in members:
                now = base | members
                model = default_model(now[f"ki_{loop}"], now[f"leak_{loop}"])
                for part in d.Kalman._fields:
                    members[f"kalman_{loop}.{part}"] = getattr(model, part).astype(np.float32)
        return Overrides(members, switches, limits)

    def _per_mode(self, key: str, modes: int) -> Any:
        value = np.asarray(self.values[key], dtype=np.float64)
        if value.ndim and value.size != modes:
            raise fault("replay", key, Found(f"{value.size} items"), f"one number, or {modes} (one per mode)")
        return np.broadcast_to(value, (modes,)).copy()


@dataclass(frozen=True)
class Overrides:
    """Arrays, and columns of switches and limits, that take the place of recorded ones."""

    members: Arrays
    switches: Mapping[int, int]
    limits: Mapping[int, float]

    def applied(self, arrays: Arrays) -> Arrays:
        """Return the arrays of a version, or of its changes, with these in their place."""
        mixed = {name: self.members.get(name, array) for name, array in arrays.items()}
        for name, columns in (("switches", self.switches), ("limits", self.limits)):
            if name in mixed and columns:
                mixed[name] = mixed[name].copy()
                for column, value in columns.items():
                    mixed[name][column] = value
        return mixed


def changes_of_file(path: Path | str, beam: int) -> Changes:
    """Read the keys that a runtime file gives for a beam; keys that it does not have stay as recorded.

    Raises
    ------
    ConfigError : the file is wrong, as for the server.
    """
    file = absolute(path)
    load_runtime(file)
    document, _ = read_document(file)
    values = _values(file, "", document)
    own = document.get("beam", {}).get(str(beam), {})
    return Changes(values | _values(file, f"beam.{beam}.", own))


def _values(file: Path, prefix: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for table in ("loop", "control_lo", "control_ho", "limits"):
        checked = check_table(file, f"{prefix}{table}", tables.get(table, {}), TABLES[table])
        values |= {f"{table}.{key}": value for key, value in checked.items()}
    # An empty controller type is that of the calibration file, which is the recorded one.
    return {key: value for key, value in values.items() if key in CHANGEABLE and value != ""}


def changes_of_texts(texts: Iterable[str]) -> Changes:
    """Read changes written as ``table.key=value``, the value as in TOML.

    Raises
    ------
    RequestError, ConfigError : a text is wrong; says which and what is allowed.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in CHANGEABLE:
            raise RequestError(f"{text}: expected KEY=VALUE with a KEY of {', '.join(CHANGEABLE)}")
        table, name = key.split(".")
        try:
            given = parse_toml(f"value = {value}")["value"]
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{text}: the value is not valid TOML: {error}") from None
        values[key] = check_table("--set", table, {name: given}, TABLES[table])[name]
    return Changes({key: value for key, value in values.items() if value != ""})
