"""Clients that load the product, in processes of their own: ``python -m benchmarks.clients KIND TARGET...``.

They wait for lines on standard input: ``go``, ``pause``, ``end``; then they tell on standard output what they
saw, as one line of JSON. A first line, ``ready``, says that all are connected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

PROBE_PERIOD_S: Final = 0.02
STATUS_TIMEOUT_MS: Final = 1500
_ATTRIBUTES: Final = [
    "State",
    "TT_state",
    "HO_state",
    "frame_rate",
    "strehl",
    "snr",
    "flux",
    "e_LO",
    "dm_map",
]
_END_S: Final = 20.0


@dataclass
class Seen:
    """What the clients of one kind saw."""

    asked: int = 0
    missed: int = 0
    events: int = 0
    times_ms: list[float] = field(default_factory=list)

    def add(self, other: Seen) -> Seen:
        """Return the sum."""
        return Seen(
            self.asked + other.asked,
            self.missed + other.missed,
            self.events + other.events,
            self.times_ms + other.times_ms,
        )


class Clients:
    """Processes with clients of one kind; use it in a `with` statement.

    Parameters
    ----------
    kind : one of `KINDS`.
    targets : devices or endpoints; one thread for each.
    processes : number of processes that the targets are dealt out to.
    """

    def __init__(self, kind: str, targets: Sequence[str], processes: int = 1) -> None:
        command = [sys.executable, "-m", "benchmarks.clients", kind]
        self._processes = [
            subprocess.Popen(
                [*command, *targets[number::processes]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]

    def __enter__(self) -> Clients:
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                self._kill()
                raise RuntimeError("a client of the benchmark did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def go(self) -> None:
        """Let them ask."""
        self._tell("go")

    def pause(self) -> None:
        """Have them be silent."""
        self._tell("pause")

    def end(self) -> Seen:
        """End them; return what they saw."""
        self._tell("end")
        seen = Seen()
        for process in self._processes:
            told, _ = process.communicate(timeout=_END_S)
            seen = seen.add(Seen(**json.loads(told)))
        return seen

    def _tell(self, word: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(word + "\n")
            process.stdin.flush()

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


Ask = Callable[[], object]


def _tango_reader(device: str) -> Ask:
    """Read one attribute after the other; every fourth time run a command."""
    import tango

    proxy = tango.DeviceProxy(device)
    proxy.ping()
    turn = 0

    def ask() -> object:
        nonlocal turn
        turn += 1
        if turn % 4 == 0:
            return proxy.command_inout("Status")
        return proxy.read_attribute(_ATTRIBUTES[turn % len(_ATTRIBUTES)])

    return ask


def _attribute_reader(device: str) -> Ask:
    """Read one attribute."""
    import tango

    proxy = tango.DeviceProxy(device)
    proxy.ping()
    return lambda: proxy.read_attribute("residual_rms")


def _status_asker(endpoint: str) -> Ask:
    """Ask a commander for its status; a socket that missed a reply stays stuck, as those of real clients."""
    import zmq

    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, STATUS_TIMEOUT_MS)
    socket.connect(endpoint)

    def ask() -> object:
        socket.send_string("status")
        return json.loads(socket.recv())

    ask()
    return ask


KINDS: Final = {
    "tango": (_tango_reader, 0.0),
    "commander": (_status_asker, 0.0),
    "tango-probe": (_attribute_reader, PROBE_PERIOD_S),
    "commander-probe": (_status_asker, PROBE_PERIOD_S),
}
"""Kinds of clients: how one asks, and the time between two questions [s], 0 as fast as it can."""


def _go_before_others() -> None:
    """Measure the server, not how long the clients that share its computer keep this one waiting."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as error:
        sys.stderr.write(f"client without real-time priority, its own waiting counts: {error}\n")


def _client(ask: Ask, period_s: float, may_ask: threading.Event, ended: threading.Event) -> Seen:
    """Ask until the end; only one thread uses the result before that."""
    seen = Seen()
    while not ended.is_set():
        if not may_ask.wait(0.1):
            continue
        began = time.perf_counter()
        seen.asked += 1
        try:
            ask()
        except Exception as error:  # whatever the library calls a reply that did not come
            seen.missed += 1
            sys.stderr.write(f"client: {error}\n")
            time.sleep(PROBE_PERIOD_S)
            continue
        seen.times_ms.append(round((time.perf_counter() - began) * 1e3, 3))
        if period_s:
            ended.wait(period_s)
    return seen


def _subscribe(targets: Sequence[str], seen: Seen) -> list[object]:
    """Subscribe to the change events of everything that has some."""
    import tango

    proxies: list[object] = []

    def count(event: tango.EventData) -> None:
        seen.events += 1

    for device in targets:
        proxy = tango.DeviceProxy(device)
        proxies.append(proxy)
        for name in proxy.get_attribute_list():
            try:
                proxy.subscribe_event(name, tango.EventType.CHANGE_EVENT, count)
            except tango.DevFailed:
                continue  # no change events
    return proxies


def main() -> int:
    """Run the clients that the command line names."""
    kind, targets = sys.argv[1], sys.argv[2:]
    may_ask, ended = threading.Event(), threading.Event()
    found: list[Seen] = []
    if kind.endswith("-probe"):
        _go_before_others()
    threads = []
    kept: list[object] = []
    if kind == "events":
        found.append(Seen())
        kept = _subscribe(targets, found[0])
    else:
        make, period_s = KINDS[kind]
        for ask in [make(target) for target in targets]:
            threads.append(
                threading.Thread(
                    target=lambda ask=ask: found.append(_client(ask, period_s, may_ask, ended)), daemon=True
                )
            )
    for thread in threads:
        thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if line.strip() == "go":
            may_ask.set()
        elif line.strip() == "pause":
            may_ask.clear()
        else:
            break
    ended.set()
    for thread in threads:
        thread.join()
    seen = Seen()
    for each in found:
        seen = seen.add(each)
    sys.stdout.write(json.dumps(vars(seen)) + "\n")
    sys.stdout.flush()
    kept.clear()
    return 0


if __name__ == "__main__":
    sys.exit(main())
