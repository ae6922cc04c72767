"""The streams of the virtual instrument: made at its start, removed at its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.configuration.settings import StreamSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.simulation_streams import N_CHANNELS, N_STREAMS, StreamTable
from baldr_tango.names import GRID_SIDE
from baldr_tango.simulator.optics import FRAME_SIDE
from baldr_tango.simulator.truth import TRUTH_FIELDS, truth_stream
from baldr_tango.streams import CNT0, DATA, SEMAPHORE_CAP, WRITE, Stream


def dm_channels(settings: StreamSettings) -> list[str]:
    """Return the names of the five DM channels of a beam, channel 0 (the flat) first.

    Raises
    ------
    ConfigError : the channel of the real-time loop is not one of them.
    """
    names = [f"{settings.dm_combined}disp{channel:02d}" for channel in range(N_CHANNELS)]
    if settings.dm_command not in names:
        raise ConfigError(
            f"[streams] dm_command: found {settings.dm_command!r}, expected one of {', '.join(names)}, "
            "the channels of the virtual instrument"
        )
    return names


class InstrumentStreams:
    """All streams of the virtual instrument, open."""

    def __init__(self, config: RuntimeConfig, beams: Sequence[int], flat: float) -> None:
        """Create the streams; those of a former instrument are replaced by new files.

        flat : command of a flat mirror, put on channel 0 [DM units].

        Raises
        ------
        BackendError : a stream cannot be created.
        """
        self.rows: list[list[Stream]] = []
        self._directory = config.for_beam(beams[0]).streams.directory or None
        try:
            for beam in beams:
                self.rows.append([])
                self._create(config.for_beam(beam).streams, self.rows[-1], flat)
        except BaseException:
            self.remove()
            raise

    def _create(self, settings: StreamSettings, row: list[Stream], flat: float) -> None:
        mirror = (GRID_SIDE, GRID_SIDE)
        for name in [*dm_channels(settings), settings.dm_combined]:
            row.append(Stream.create(name, mirror, np.float64, self._directory))
        row[0].write(np.full(mirror, flat), post=False)
        row.append(Stream.create(settings.camera, (FRAME_SIDE, FRAME_SIDE), np.int32, self._directory))
        row.append(
            Stream.create(
                truth_stream(settings.camera), (len(TRUTH_FIELDS),), np.float64, self._directory, semaphores=0
            )
        )

    def table(self, trigger: int) -> StreamTable:
        """Return what the compiled loop needs of the streams.

        trigger : semaphore of the combined DM stream that writers post.
        """
        camera = [row[N_CHANNELS + 1] for row in self.rows]
        posts = [[s.address for s in [*c.semaphores, c.log_semaphore] if s is not None] for c in camera]
        return StreamTable(
            descriptors=np.array([[stream.fd for stream in row] for row in self.rows], dtype=np.int64),
            triggers=np.array(
                [row[N_CHANNELS].semaphores[trigger].address for row in self.rows], dtype=np.int64
            ),
            posts=np.array(posts, dtype=np.int64),
            cap=SEMAPHORE_CAP,
            data_offset=DATA,
            cnt0_offset=CNT0,
            write_offset=WRITE,
        )

    def remove(self) -> None:
        """Close the streams and remove those that nobody has replaced meanwhile."""
        for row in self.rows:
            for stream in row:
                is_ours = stream.is_current() is None
                stream.close()
                if is_ours:
                    Stream.destroy(stream.name, self._directory)
        self.rows = []


def no_streams(beams: int, semaphores: int = 11) -> StreamTable:
    """Return a table of the same types without any stream, to compile the loop with."""
    return StreamTable(
        descriptors=np.full((beams, N_STREAMS), -1, dtype=np.int64),
        triggers=np.zeros(beams, dtype=np.int64),
        posts=np.zeros((beams, semaphores), dtype=np.int64),
        cap=SEMAPHORE_CAP,
        data_offset=DATA,
        cnt0_offset=CNT0,
        write_offset=WRITE,
    )
