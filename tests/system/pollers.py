"""Two ordinary clients, each a program of its own: one asks the commander, one the Tango device.

``python pollers.py zmq ENDPOINT COUNT PERIOD_S`` or ``tango DEVICE COUNT PERIOD_S``; prints how many
answers came.
"""

from __future__ import annotations

import json
import sys
import time


def main(kind: str, target: str, count: int, period_s: float) -> int:
    """Poll `count` times and return the number of sane answers."""
    if kind == "zmq":
        import zmq

        socket = zmq.Context.instance().socket(zmq.REQ)
        socket.setsockopt(zmq.RCVTIMEO, 2000)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(target)

        def ask() -> bool:
            socket.send_string("status")
            return len(json.loads(socket.recv_string())) >= 15
    else:
        import tango

        device = tango.DeviceProxy(target)

        def ask() -> bool:
            return bool(device.frames >= 0) and len(json.loads(device.status_json())) >= 15

    answers = 0
    due = time.monotonic()
    for _ in range(count):
        answers += ask()
        due += period_s
        time.sleep(max(0.0, due - time.monotonic()))
    return answers


if __name__ == "__main__":
    sys.stdout.write(f"{main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))}\n")
