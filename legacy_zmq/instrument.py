"""``baldr-simulator``: the virtual instrument as a process, with its camera server, MDS and DM server."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, Protocol

from baldr_tango.configuration.runtime import RuntimeConfig, load_runtime
from baldr_tango.configuration.shipped import shipped_config
from baldr_tango.errors import BaldrError
from legacy_zmq.protocol import error_reply
from legacy_zmq.server import Answer, Later, ReplyServer
from legacy_zmq.virtual_camera import CameraQuirks, VirtualCamera, VirtualDetector
from legacy_zmq.virtual_dm import VirtualDmServer, VirtualMirrors
from legacy_zmq.virtual_mds import VirtualMds, VirtualOptics
from legacy_zmq.virtual_stages import VirtualStages

if TYPE_CHECKING:
    from baldr_tango.simulator.instrument import VirtualInstrument

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_PARENT_CHECK_S: Final = 0.5


class Controls(VirtualDetector, VirtualOptics, VirtualMirrors, Protocol):
    """What the control servers command of the virtual instrument."""


class ControlQuirks(CameraQuirks, Protocol):
    """Habits of the real servers, as they are switched at the moment."""

    nul_endings: bool


class ControlServers:
    """Camera server, MDS and DM server of the virtual instrument; a context manager.

    Parameters
    ----------
    instrument : what they command.
    camera, mds, dm_server : endpoints; no DM server when that is empty.
    mask : in the beams at the start; or that of each beam.
    speed_um_s : of the phase-mask stages [um/s].
    directory : of what the MDS writes.
    quirks : in force; None: none.
    """

    def __init__(
        self,
        instrument: Controls,
        *,
        camera: str,
        mds: str,
        dm_server: str = "",
        mask: str | Mapping[int, str] = "H3",
        speed_um_s: float = math.inf,
        directory: Path = Path(),
        quirks: ControlQuirks | None = None,
    ) -> None:
        self.stages = VirtualStages(instrument.beams, instrument.put_mask, mask, speed_um_s)
        self.mds_model = VirtualMds(instrument, stages=self.stages, directory=directory)
        ending = partial(_ending, quirks)
        self.camera = ReplyServer(
            camera,
            ending(VirtualCamera(instrument, quirks).answer),
            failure=lambda text: error_reply(text).encode(),
            name="virtual camera server",
        )
        self.mds = ReplyServer(
            mds,
            ending(self.mds_model.answer),
            failure=lambda text: f"NACK: {text}\n".encode(),
            name="virtual MDS",
        )
        self.dm_server: ReplyServer | None = None
        if dm_server:
            self.dm_server = ReplyServer(
                dm_server,
                ending(VirtualDmServer(instrument).answer),
                failure=lambda text: error_reply(text).encode(),
                name="virtual DM server",
            )

    @classmethod
    def of(cls, instrument: VirtualInstrument, config: RuntimeConfig) -> ControlServers:
        """Return the servers of a virtual instrument, where its configuration wants them."""
        return cls(
            instrument,
            camera=config.endpoints.camera,
            mds=config.endpoints.mds,
            dm_server=config.endpoints.dm_server,
            mask={beam: config.for_beam(beam).mask for beam in config.beams},
            speed_um_s=config.simulator.stage_speed_um_s,
            directory=config.instrument.state,
            quirks=instrument.quirks,
        )

    def __enter__(self) -> ControlServers:
        """Start them; raise `BackendError` when an endpoint is in use."""
        with ExitStack() as stack:
            stack.callback(self.stages.close)
            for server in (self.camera, self.mds, self.dm_server):
                if server is not None:
                    server.start()
                    stack.callback(server.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def places(self) -> str:
        """Where the servers listen, in words."""
        text = f"camera server {self.camera.endpoint}, MDS {self.mds.endpoint}"
        return text if self.dm_server is None else f"{text}, DM server {self.dm_server.endpoint}"


def _ending(quirks: ControlQuirks | None, answer: Answer) -> Answer:
    """Give the replies of a server the NUL that some servers add, while that quirk is on."""

    def end(reply: bytes | None) -> bytes | None:
        return reply + b"\0" if reply is not None and quirks is not None and quirks.nul_endings else reply

    def answered(payload: bytes, source: str) -> bytes | Later | None:
        given = answer(payload, source)
        if isinstance(given, Later):
            return Later(lambda: end(given.work()), given.in_turn)
        return end(given)

    return answered


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``baldr-simulator`` until SIGINT or SIGTERM; return its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=getattr(logging, options.log_level.upper()),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    parent = os.getppid()
    if options.with_parent is not None:
        parent = options.with_parent or parent
        end_with_parent()
    try:
        config = _configuration(options)
        with ExitStack() as stack:
            instrument = _instrument(config)
            stack.enter_context(instrument)
            servers = stack.enter_context(ControlServers.of(instrument, config))
            beams = ",".join(map(str, config.beams))
            sys.stdout.write(f"ready: beams {beams} at {instrument.rate_hz:g} Hz, {servers.places()}\n")
            sys.stdout.flush()
            while not stopping.wait(_PARENT_CHECK_S):
                if options.with_parent is not None and os.getppid() != parent:
                    log.warning("the parent process has ended")
                    break
    except BaldrError as error:
        sys.stderr.write(f"baldr-simulator: {error}\n")
        return 1
    return 0


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the thread that started this process ends (Linux only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        log.warning("prctl(PR_SET_PDEATHSIG): %s", os.strerror(ctypes.get_errno()))


def _instrument(config: RuntimeConfig) -> VirtualInstrument:
    # Its import compiles for seconds; `--help` and a wrong option need not wait for that.
    from baldr_tango.simulator.instrument import VirtualInstrument

    return VirtualInstrument(config)


def _configuration(options: argparse.Namespace) -> RuntimeConfig:
    config = load_runtime(options.config or shipped_config("baldr.toml"), state=options.state)
    changes = {"rate_hz": options.rate, "seed": options.seed}
    simulator = dataclasses.replace(
        config.simulator, **{name: value for name, value in changes.items() if value is not None}
    )
    return dataclasses.replace(config, simulator=simulator)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="baldr-simulator",
        description="Virtual instrument: frames and mirrors of all beams; camera server, MDS and DM server.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="runtime file (default: the shipped one)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="in place of instrument.state")
    parser.add_argument("--rate", type=_rate, metavar="HZ", help="frame rate, in place of simulator.rate_hz")
    parser.add_argument("--seed", type=_seed, metavar="N", help="in place of simulator.seed")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    parser.add_argument(
        "--with-parent",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="end when the process that started this one (PID, if it may have ended already) has ended",
    )
    return parser


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10000:
        raise argparse.ArgumentTypeError(f"found {text}, expected a frame rate above 0, up to 10000 Hz")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"found {text}, expected an integer from 0 to 2147483647")
    return value


if __name__ == "__main__":
    sys.exit(main())
