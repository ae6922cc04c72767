"""The streams of the virtual instrument: made at its start, removed at its end, some re-made in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.configuration.settings import StreamSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.simulation_streams import FIRST_CHANNEL, StreamTable
from baldr_tango.names import GRID_SIDE
from baldr_tango.simulator.optics import FRAME_SIDE
from baldr_tango.simulator.truth import TRUTH_FIELDS, truth_stream
from baldr_tango.streams import CNT0, DATA, SEMAPHORE_CAP, WRITE, Stream

N_CHANNELS: Final = 5
"""DM channels of each mirror at the start."""

MAX_CHANNELS: Final = 16

_MIRROR: Final = (GRID_SIDE, GRID_SIDE)


def channel_name(settings: StreamSettings, channel: int) -> str:
    """Return the name of a DM channel of a beam."""
    return f"{settings.dm_combined}disp{channel:02d}"


def dm_channels(settings: StreamSettings) -> list[str]:
    """Return the names of the five DM channels of a beam, channel 0 (the flat) first.

    Raises
    ------
    ConfigError : the channel of the real-time loop is not one of them.
    """
    names = [channel_name(settings, channel) for channel in range(N_CHANNELS)]
    if settings.dm_command not in names:
        raise ConfigError(
            f"[streams] dm_command: found {settings.dm_command!r}, expected one of {', '.join(names)}, "
            "the channels of the virtual instrument"
        )
    return names


@dataclass
class BeamStreams:
    """Streams of one beam, open; those that could not be created are absent."""

    settings: StreamSettings
    channels: list[Stream] = field(default_factory=list)
    combined: list[Stream] = field(default_factory=list)
    camera: list[Stream] = field(default_factory=list)
    truth: list[Stream] = field(default_factory=list)

    def __iter__(self) -> Iterator[Stream]:
        return iter([*self.channels, *self.combined, *self.camera, *self.truth])


class InstrumentStreams:
    """All streams of the virtual instrument, open."""

    def __init__(self, config: RuntimeConfig, beams: Sequence[int], flat: float) -> None:
        """Create the streams; those of a former instrument are replaced by new files.

        flat : command of a flat mirror, put on channel 0 [DM units].

        Raises
        ------
        BackendError : a stream cannot be created.
        """
        self.beams: list[BeamStreams] = []
        self.n_channels = N_CHANNELS
        self._flat = flat
        self._directory = config.for_beam(beams[0]).streams.directory or None
        try:
            for beam in beams:
                settings = config.for_beam(beam).streams
                dm_channels(settings)
                one = BeamStreams(settings)
                self.beams.append(one)
                self._create_channels(one)
                one.combined.append(self._mirror(settings.dm_combined))
                one.camera.append(self._camera(settings.camera))
                one.truth.append(
                    Stream.create(
                        truth_stream(settings.camera),
                        (len(TRUTH_FIELDS),),
                        np.float64,
                        self._directory,
                        semaphores=0,
                    )
                )
        except BaseException:
            self.remove()
            raise

    def _mirror(self, name: str) -> Stream:
        return Stream.create(name, _MIRROR, np.float64, self._directory)

    def _camera(self, name: str, in_place: bool = False) -> Stream:
        return Stream.create(name, (FRAME_SIDE, FRAME_SIDE), np.int32, self._directory, in_place=in_place)

    def _create_channels(self, one: BeamStreams) -> None:
        for channel in range(self.n_channels):
            one.channels.append(self._mirror(channel_name(one.settings, channel)))
        one.channels[0].write(np.full(_MIRROR, self._flat), post=False)

    def recreate_cameras(self, in_place: Sequence[bool]) -> None:
        """Create the camera stream of each beam again, over the old file or as a new one.

        The compiled loop must not be running.
        """
        for one, keep_file in zip(self.beams, in_place, strict=True):
            new = self._camera(one.settings.camera, keep_file)
            for old in one.camera:
                old.close()
            one.camera = [new]

    def recreate_channels(self, count: int) -> None:
        """Destroy all DM channels and create `count` new ones per mirror; the loop must not be running."""
        self.n_channels = count
        for one in self.beams:
            for stream in one.channels:
                stream.close()
                Stream.destroy(stream.name, self._directory)
            one.channels = []
            self._create_channels(one)

    def table(self, trigger: int) -> StreamTable:
        """Return what the compiled loop needs of the streams.

        trigger : semaphore of the combined DM stream that writers post.
        """
        posts = [
            [s.address for s in [*one.camera[0].semaphores, one.camera[0].log_semaphore] if s is not None]
            for one in self.beams
        ]
        descriptors = [
            [stream.fd for stream in [*one.combined, *one.camera, *one.truth, *one.channels]]
            for one in self.beams
        ]
        return StreamTable(
            descriptors=np.array(descriptors, dtype=np.int64),
            triggers=np.array(
                [one.combined[0].semaphores[trigger].address for one in self.beams], dtype=np.int64
            ),
            posts=np.array(posts, dtype=np.int64),
            cap=SEMAPHORE_CAP,
            data_offset=DATA,
            cnt0_offset=CNT0,
            write_offset=WRITE,
        )

    def remove(self) -> None:
        """Close the streams and remove those that nobody has replaced meanwhile."""
        for one in self.beams:
            for stream in one:
                is_ours = stream.is_current() is None
                stream.close()
                if is_ours:
                    Stream.destroy(stream.name, self._directory)
        self.beams = []


def no_streams(beams: int, semaphores: int = 11) -> StreamTable:
    """Return a table of the same types without any stream, to compile the loop with."""
    return StreamTable(
        descriptors=np.full((beams, FIRST_CHANNEL), -1, dtype=np.int64),
        triggers=np.zeros(beams, dtype=np.int64),
        posts=np.zeros((beams, semaphores), dtype=np.int64),
        cap=SEMAPHORE_CAP,
        data_offset=DATA,
        cnt0_offset=CNT0,
        write_offset=WRITE,
    )
