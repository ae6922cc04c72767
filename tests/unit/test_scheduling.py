"""Real-time scheduling without permission: everything works, and a warning says what to change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

SCRIPT = """
import ctypes, json, logging, os, resource, sys

sys.path.insert(0, {repository!r})
from baldr_tango.rtc.scheduling import lock_memory, real_time
from baldr_tango.configuration.settings import RealtimeSettings

resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

said = []

class Keep(logging.Handler):
    def emit(self, record):
        said.append((record.levelname, record.getMessage()))

log = logging.getLogger("test")
log.addHandler(Keep())
cpus = sorted(os.sched_getaffinity(0))
policy = os.sched_getscheduler(0)
settings = RealtimeSettings(priority=50, cpus={cpus}, lock_memory=True)
inside = []
for _ in range(2):
    with real_time(settings, log):
        inside.append((os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))))
after = (os.sched_getscheduler(0), sorted(os.sched_getaffinity(0)))
locked = lock_memory(log)
seen = dict(said=said, inside=inside, after=after, cpus=cpus, policy=policy, locked=locked)
json.dump(seen, sys.stdout)
"""


def run_without_permission(cpus):
    """Let a process without any permission ask for everything; return what it has seen."""
    script = SCRIPT.format(repository=str(REPOSITORY), cpus=cpus)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment
    )
    if "Permission denied" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("a process without permissions cannot read the installed packages here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_refusal_is_told_once_with_what_to_change():
    seen = run_without_permission("(4095,)")
    assert seen["locked"] is False
    assert seen["inside"] == [[seen["policy"], seen["cpus"]]] * 2
    assert seen["after"] == [seen["policy"], seen["cpus"]]
    levels, texts = zip(*seen["said"], strict=True)
    assert set(levels) == {"WARNING"}
    memory, cpus, priority = texts
    assert "memory is not locked" in memory
    assert "memlock limit" in memory
    assert "[4095]" in cpus
    assert "stays on CPUs" in cpus
    assert "normal scheduling instead of SCHED_FIFO 50" in priority
    assert "rtprio limit or CAP_SYS_NICE" in priority


def test_what_is_permitted_is_used_all_the_same():
    cpu = min(os.sched_getaffinity(0))
    seen = run_without_permission(f"({cpu},)")
    assert seen["inside"][0] == [seen["policy"], [cpu]]
    assert seen["after"][1] == seen["cpus"]
    assert len(seen["said"]) == 2


GATHERED = """
import json, logging, os, sys, threading
from baldr_tango.configuration.settings import RealtimeSettings
from baldr_tango.rtc.scheduling import gather_on, real_time, usable_cpus

log = logging.getLogger("test")
logging.disable()
first = min(os.sched_getaffinity(0))

def now():
    return sorted(os.sched_getaffinity(0))

def inside(**settings):
    with real_time(RealtimeSettings(priority=0, lock_memory=False, **settings), log):
        return now()

def in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(now()))
    thread.start()
    thread.join()
    return found[0]

seen = dict(before=now(), refused=gather_on([4095], log), still=now(), taken=gather_on([first], log))
seen |= dict(after=now(), thread=in_thread(), usable=sorted(usable_cpus()))
seen |= dict(asleep=inside(), polling=inside(waiting="spin"), told=inside(cpus=(first,)), at_last=now())
json.dump(seen, sys.stdout)
"""


def test_loops_are_not_kept_where_all_the_rest_is():
    machine = sorted(os.sched_getaffinity(0))
    if len(machine) < 2:
        pytest.skip("this process may use one CPU only")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", GATHERED], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    first = machine[:1]
    assert json.loads(done.stdout) == {
        "before": machine,
        "refused": False,
        "still": machine,
        "taken": True,
        "after": first,
        "thread": first,
        "usable": machine,
        "asleep": machine,
        "polling": machine[1:],
        "told": first,
        "at_last": first,
    }
