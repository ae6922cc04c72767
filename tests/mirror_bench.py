"""A beam on a loop that is stepped frame by frame: commands in, mirror and telemetry out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases import basis
from baldr_tango.beam import Beam
from baldr_tango.beam.changes import put_in_force
from baldr_tango.commands import execute
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import CORNERS, N_GRID
from tests.harness import LoopBench
from tests.problem import random_frame, random_problem

WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0)


def mirror_problem(seed: int = 0, **changes: Any) -> LoopParameters:
    """A random problem on the real mirror's grid: tip and tilt as low-order modes, one mode per actuator."""
    shapes_ho = np.eye(N_GRID)
    shapes_ho[list(CORNERS)] = 0.0
    return random_problem(
        seed,
        side=16,
        grid=12,
        **{
            "limits": WIDE,
            "mode_shapes_lo": 2.0 * basis("zernike").modes[:2].T,
            "mode_shapes_ho": shapes_ho,
            **changes,
        },
    )


class MirrorBench(LoopBench):
    """A `LoopBench` whose loop belongs to a beam."""

    def __init__(self, parameters: LoopParameters, **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.beam = Beam(self.settings)
        self.beam.loop = self.loop
        self._rng = np.random.default_rng(12)

    def ask(self, name: str, *args: Any) -> Any:
        """Run a command as a client does."""
        return execute(self.beam, name, args)

    def set_limit(self, command: float) -> None:
        """Change the limit of the command [DM units]."""
        put_in_force(self.loop, limits={d.COMMAND_LIMIT: command})

    def frame(self) -> NDArray[np.int32]:
        """A plausible frame."""
        return random_frame(self.parameters, self._rng)

    def lose(self, frames: int) -> None:
        """Have the camera count frames that the loop does not see."""
        for _ in range(frames):
            self.camera.write(self.frame(), post=False)

    def run(self, frames: int, field: str = "c_inj") -> NDArray[Any]:
        """Step through random frames; return one telemetry field of each (frames, ...)."""
        values = []
        for _ in range(frames):
            self.step(self.frame())
            values.append(self.newest(field))
        return np.array(values)
