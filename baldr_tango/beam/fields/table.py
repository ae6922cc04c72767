"""The table of runtime fields. Paths and types are those of the legacy server; what is new is at the end.

Sizes in shapes: P pixels of a frame, A signals (actuators), L and H low-order and high-order modes, G points
of the DM map, M all modes.
"""

from __future__ import annotations

from typing import Final

from baldr_tango.beam.fields import makers as m
from baldr_tango.beam.fields.field import FieldTable
from baldr_tango.beam.fields.injection import INJECTION_FIELDS

_DM_REFERENCE = ("reference_pupils.I0_dm", "I0_dm_runtime")
_DM_CLEAR = ("reference_pupils.norm_pupil_dm", "N0_dm_runtime")
_MASKS: Final = {
    "bad_pixel_mask": "1 where a pixel is good",
    "pupil": "1 in the pupil",
    "secondary": "1 in the box at the secondary obstruction",
    "exterior": "1 in the ring outside the pupil where the dot diffracts light",
    "inner_pupil_filt": "1 in the pupil without border and secondary",
}
_CAMERA: Final = (
    "fps", "gain", "testpattern", "bias", "flat", "imagetags", "led", "events", "extsynchro", "rawimages",
    "cooling", "mode", "resetwidth", "nbreadworeset", "cropping", "cropping_columns", "cropping_rows",
    "aduoffset",
)  # fmt: skip
_INTERPOLATED: Final = (
    *_DM_REFERENCE,
    *_DM_CLEAR,
    "reduction.bias_dm",
    "reduction.dark_dm",
    *(f"filters.{name}_dm" for name in _MASKS),
)

FIELDS: Final = FieldTable()
"""Every runtime field. A module that owns further ones adds them."""

FIELDS.add(
    m.key("state.DM_flat", "string", "DM_flat", "flat on DM channel 0 during the calibration"),
    m.key("state.signal_space", "string", "signal_space", "space of the signal, dm or pix"),
    m.key("state.LO", "int", "LO", "number of low-order modes"),
    m.reading("state.controller_type", "string", m.controller_type, "controllers in force"),
    m.key("state.inverse_method_LO", "string", "inverse_method_LO", "how I2M_LO was inverted"),
    m.key("state.inverse_method_HO", "string", "inverse_method_HO", "how I2M_HO was inverted"),
    m.key("state.phasemask", "string", "mask", "phase mask whose calibration is loaded"),
    m.automation("state.auto_close", "auto_close", "1: close the loops by itself"),
    m.automation("state.auto_open", "auto_open", "1: open the loops by itself"),
    m.key("state.auto_tune", "int", "auto_tune", "an intention of the calibration file, unused"),
    m.reading("state.take_telemetry", "int", m.is_saving, "1 while a telemetry file is being saved"),
    m.reading("state.simulation_mode", "int", lambda live: 0, "0: there is no such mode"),
    m.key("reduction.bias", "vector<double>", "bias", "detector bias of the file", ("P",), "ADU"),
    m.interpolated("reduction.bias_dm", "vector<double>", "bias", "reduction.bias at the actuators", "ADU"),
    m.member("reduction.dark", "vector<double>", "dark", "what is subtracted from a frame", ("P",), "ADU"),
    m.reading(
        "reduction.dark_dm", "vector<double>", m.dark_dm, "reduction.dark at the actuators", ("A",), "ADU"
    ),
    m.key(
        "pixels.crop_pixels", "vector<int16>", "crop_pixels", "r1, r2, c1, c2 in the full frame", ("4",), "px"
    ),
    m.pixels("bad_pixels", "bad pixels"),
    m.pixels("pupil_pixels", "pixels of the pupil"),
    m.pixels("interior_pixels", "pixels of the pupil without its border"),
    m.pixels("secondary_pixels", "box at the secondary obstruction, the fifth is its centre"),
    m.pixels("exterior_pixels", "ring outside the pupil where the dot diffracts light"),
    *(m.camera(name) for name in _CAMERA),
    *(m.key(f"filters.{name}", "vector<uint8>", name, doc, ("P",)) for name, doc in _MASKS.items()),
    *(
        m.interpolated(f"filters.{name}_dm", "vector<float>", name, f"filters.{name} at the actuators")
        for name in _MASKS
    ),
    m.reading("zeroCmd", "vector<double>", m.zero_command, "flat command", ("G",), "DM units"),
    m.member(
        "I2M_HO_runtime",
        "matrix<double>",
        "reconstructor_ho",
        "high-order reconstructor in force",
        ("H", "A"),
        "DM units",
    ),
    m.member("sec_idx", "int", "secondary_pixel", "centre of the secondary obstruction, flat index"),
    m.reading(
        "m_s_runtime", "double", lambda live: live.parameters.strehl_line[0], "slope of the Strehl line"
    ),
    m.reading(
        "b_s_runtime", "double", lambda live: live.parameters.strehl_line[1], "intercept of the Strehl line"
    ),
    m.key(
        "reference_pupils.I0",
        "vector<double>",
        "I0",
        "frame with the phase mask, over its sum",
        ("P",),
        derives=("reference",),
        followers=_DM_REFERENCE,
    ),
    m.key(
        "reference_pupils.N0",
        "vector<double>",
        "N0",
        "frame without the phase mask",
        ("P",),
        "ADU",
        derives=("clear_pupil", "signal_mask"),
        followers=_DM_CLEAR,
    ),
    m.key(
        "reference_pupils.norm_pupil",
        "vector<double>",
        "norm_pupil",
        "clear pupil to normalise by, over the sum of N0",
        ("P",),
        derives=("clear_pupil", "signal_mask"),
        followers=_DM_CLEAR,
    ),
    m.derived(
        "reference_pupils.norm_pupil_dm",
        "clear_pupil",
        "clear pupil at the actuators",
        ("A",),
        check=m.with_light,
        followers=_DM_CLEAR[1:],
    ),
    m.derived(
        "reference_pupils.I0_dm",
        "reference",
        "reference at the actuators",
        ("A",),
        followers=_DM_REFERENCE[1:],
    ),
    m.in_force("I0_dm_runtime", "vector<double>", "reference", "reference in force", ("A",)),
    m.in_force(
        "N0_dm_runtime", "vector<double>", "clear_pupil", "clear pupil in force", ("A",), check=m.with_light
    ),
    m.key(
        "matrices.I2A",
        "matrix<double>",
        "I2A",
        "interpolation from pixels to actuators",
        ("A", "P"),
        derives=("pixels_to_actuators", "reference", "clear_pupil", "signal_mask"),
        followers=_INTERPOLATED,
    ),
    m.note("matrices.I2M", "matrix<double>", "unused, always empty", [], ("0", "0")),
    m.key(
        "matrices.I2M_LO",
        "matrix<double>",
        "I2M_LO",
        "low-order reconstructor",
        ("L", "A"),
        "DM units",
        derives=("reconstructor_lo",),
        followers=("I2M_LO_runtime",),
    ),
    m.key(
        "matrices.I2M_HO",
        "matrix<double>",
        "I2M_HO",
        "high-order reconstructor",
        ("H", "A"),
        "DM units",
        derives=("reconstructor_ho",),
        followers=("I2M_HO_runtime",),
    ),
    m.in_force(
        "I2M_LO_runtime",
        "matrix<double>",
        "reconstructor_lo",
        "low-order reconstructor in force",
        ("L", "A"),
        "DM units",
    ),
    m.key("matrices.M2C", "matrix<double>", "M2C", "all modes on the DM map, unused", ("G", "M"), derives=()),
    m.key(
        "matrices.M2C_LO",
        "matrix<double>",
        "M2C_LO",
        "low-order modes on the DM map; set with that loop open",
        ("G", "L"),
        derives=("mode_shapes_lo",),
        only_open="LO",
    ),
    m.key(
        "matrices.M2C_HO",
        "matrix<double>",
        "M2C_HO",
        "high-order modes on the DM map; set with that loop open",
        ("G", "H"),
        derives=("mode_shapes_ho",),
        only_open="HO",
    ),
    m.key(
        "matrices.I2rms_sec",
        "matrix<double>",
        "I2rms_sec",
        "diag(slope, intercept) of the line residual over secondary-pixel intensity",
        ("2", "2"),
        derives=("strehl_line", "strehl_model"),
        followers=("m_s_runtime", "b_s_runtime"),
    ),
    m.key(
        "matrices.I2rms_ext",
        "matrix<double>",
        "I2rms_ext",
        "the same for exterior pixels",
        ("2", "2"),
        derives=(),
    ),
    m.size("matrices.szm", "szm", "M", "number of modes; 0: not said"),
    m.size("matrices.sza", "sza", "G", "points of the DM map"),
    m.size("matrices.szp", "szp", "H", "columns of I2M_HO; 0: not said"),
    m.limit("close_on_strehl_limit", "Strehl ratio above which automation closes"),
    m.limit("open_on_strehl_limit", "Strehl ratio below which automation opens"),
    m.limit("open_on_flux_limit", "SNR below which automation opens"),
    m.limit("open_on_dm_limit", "DM stroke above which automation opens", "DM units"),
    m.limit("LO_offload_limit", "limit for offloading tip/tilt, unused"),
    m.rate("fps", "frame rate assumed; the camera's own answer replaces it", "Hz", "frame_rate_hz"),
    m.rate("gain", "camera gain assumed; the camera's own answer replaces it", "", "gain"),
    m.scale("scale", "gain over frame rate, unused; setting it restores the file's reconstructors"),
    # What the legacy server has no path for.
    m.key(
        "reference_pupils.intrn_flx_I0",
        "double",
        "intrn_flx_I0",
        "flux of the internal source with the mask",
        (),
        "ADU",
        derives=(),
    ),
    m.safety("command", "DM units", "largest absolute DM command; beyond it the loops open"),
    m.safety("lo_command", "DM units", "largest absolute tip/tilt map; beyond it that controller restarts"),
    m.safety("ho_mode", "DM units", "largest absolute high-order mode; beyond it that mode restarts"),
    m.safety("min_flux_adu", "ADU", "smallest flux of a frame that is used"),
    m.safety("ho_violations", "", "violations after which a high-order mode is muted"),
    m.safety("saturation_adu", "ADU", "value from which on a raw pixel is saturated"),
    m.safety("negative_adu", "ADU", "distance below the dark from which on a pixel is negative"),
    m.safety("wrong_pixels", "", "saturated or negative pixels that a frame may have to be used"),
    m.safety("frozen_frames", "", "repetitions of the same pixels after which frames are skipped; 0: never"),
    m.safety("command_rms", "DM units", "rms of the controllers' command beyond which they run away"),
    m.safety("runaway", "", "level of running away at which the loops open; 0: never"),
    m.safety("write_failures", "", "commands in a row not written before the loops open; 0: any number"),
)
FIELDS.add(*INJECTION_FIELDS)
