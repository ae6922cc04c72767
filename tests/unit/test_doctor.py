"""What the doctor makes of a machine: files of /proc and /sys as kernels write them, in a directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from baldr_tango import kernels
from baldr_tango.streams import Stream, semaphore_name, stream_path
from devices.doctor import leftovers, memory, permissions, place, processors, software
from devices.doctor.finding import ADVICE, OK, PROBLEM, boot_options, chosen, cpu_numbers
from tests.harness import remove_streams, stream_directory

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max locked memory         {memlock}            8388608              bytes
Max realtime priority     {rtprio}             0
Max realtime timeout      unlimited            unlimited            us
"""
SYSTEM = "sys/devices/system"


def put(root: Path, **files: str) -> Path:
    """Write files below `root`; ``__`` stands for a slash."""
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def limits(root, memlock="8388608", rtprio="0", capabilities="0000000000000000"):
    """A process with these limits and capabilities."""
    return put(
        root,
        proc__self__limits=LIMITS.format(memlock=memlock, rtprio=rtprio),
        proc__self__status=f"Name:\tpython3\nCapPrm:\tffffffffffffffff\nCapEff:\t{capabilities}\n",
    )


def test_lists_of_cpus_and_choices_are_read_as_the_kernel_writes_them(tmp_path):
    assert cpu_numbers("0-2,7") == {0, 1, 2, 7}
    assert cpu_numbers("managed_irq,domain,2-3") == {2, 3}
    assert cpu_numbers("") == set()
    assert chosen("always [madvise] never") == "madvise"
    assert chosen("performance") == "performance"
    put(tmp_path, proc__cmdline="root=/dev/sda1 quiet isolcpus=2,3 preempt=full\n")
    assert boot_options(tmp_path) == {
        "root": "/dev/sda1",
        "quiet": "",
        "isolcpus": "2,3",
        "preempt": "full",
    }
    assert boot_options(tmp_path / "nowhere") == {}


def test_priority_is_judged_by_the_attempt_and_explained_by_the_limit(tmp_path):
    limits(tmp_path)
    assert permissions.priority(tmp_path, 50, "").level == OK
    assert permissions.priority(tmp_path, 0, "").level == ADVICE
    refused = permissions.priority(tmp_path, 50, "Operation not permitted")
    assert refused.level == PROBLEM
    assert "rtprio limit is 0" in refused.text
    assert "baldr - rtprio 80" in refused.fix
    limits(tmp_path, rtprio="80")
    assert "control group" in permissions.priority(tmp_path, 50, "Operation not permitted").fix
    limits(tmp_path, capabilities=f"{1 << 23:016x}")
    assert "control group" in permissions.priority(tmp_path, 50, "Operation not permitted").fix
    assert permissions.priority(tmp_path / "nowhere", 50, "no").level == PROBLEM


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({}, PROBLEM),
        ({"memlock": "unlimited"}, OK),
        ({"capabilities": f"{1 << 14:016x}"}, OK),
        ({"capabilities": f"{1 << 13:016x}"}, PROBLEM),
    ],
)
def test_locked_memory_needs_no_limit_or_the_capability(tmp_path, values, level):
    limits(tmp_path, **values)
    found = permissions.locked_memory(tmp_path, True)
    assert found.level == level
    if level == PROBLEM:
        assert "8192 kB" in found.text
        assert "baldr - memlock unlimited" in found.fix
    assert permissions.locked_memory(tmp_path, False).level == ADVICE


def test_throttling_matters_to_loops_that_spin(tmp_path):
    put(
        tmp_path,
        proc__sys__kernel__sched_rt_runtime_us="950000",
        proc__sys__kernel__sched_rt_period_us="1000000",
    )
    assert permissions.throttling(tmp_path, spins=False).level == OK
    found = permissions.throttling(tmp_path, spins=True)
    assert found.level == PROBLEM
    assert "50 ms in each 1000 ms" in found.text
    assert found.fix == "sysctl -w kernel.sched_rt_runtime_us=-1"
    put(tmp_path, proc__sys__kernel__sched_rt_runtime_us="-1")
    assert permissions.throttling(tmp_path, spins=True).level == OK


def test_the_number_of_cpus(tmp_path):
    assert processors.count(tmp_path, [0, 1, 2, 3, 4], (), 4).level == OK
    assert processors.count(tmp_path, [0, 1], (), 4).level == ADVICE
    absent = processors.count(tmp_path, [0, 1], (1, 7), 1)
    assert absent.level == PROBLEM
    assert "7" in absent.text


def test_isolation_is_complete_with_three_options_and_the_configuration(tmp_path):
    cpus = [0, 1, 2, 3]
    none = processors.isolation(tmp_path, cpus, (), 2)
    assert none.level == ADVICE
    assert "isolcpus=2,3 nohz_full=2,3 rcu_nocbs=2,3" in none.fix
    assert "isolcpus=1 " in processors.isolation(tmp_path, [0, 1], (), 4).fix
    put(tmp_path, proc__cmdline="isolcpus=managed_irq,2-3 nohz_full=2-3 rcu_nocbs=2-3")
    assert processors.isolation(tmp_path, cpus, (2, 3), 2).level == OK
    assert "realtime.cpus = [2,3]" in processors.isolation(tmp_path, cpus, (), 2).fix
    assert "isolcpus" in processors.isolation(tmp_path, cpus, (1, 2), 2).text
    put(tmp_path, proc__cmdline="isolcpus=2-3")
    assert "not all in nohz_full, rcu_nocbs" in processors.isolation(tmp_path, cpus, (2,), 2).text


def test_governors(tmp_path):
    assert processors.governor(tmp_path).level == OK
    for cpu, name in enumerate(("performance", "powersave")):
        put(tmp_path, **{f"{SYSTEM}/cpu/cpu{cpu}/cpufreq/scaling_governor": f"{name}\n"})
    found = processors.governor(tmp_path)
    assert found.level == ADVICE
    assert "powersave" in found.text
    put(tmp_path, **{f"{SYSTEM}/cpu/cpu1/cpufreq/scaling_governor": "performance\n"})
    assert processors.governor(tmp_path).level == OK


def test_sleep_states_that_take_long_to_leave(tmp_path):
    assert processors.sleep_states(tmp_path).level == OK
    state = f"{SYSTEM}/cpu/cpu0/cpuidle/state3"
    put(tmp_path, **{f"{state}/name": "C6\n", f"{state}/latency": "133\n", f"{state}/disable": "0\n"})
    found = processors.sleep_states(tmp_path)
    assert found.level == ADVICE
    assert "C6 133 us" in found.text
    put(tmp_path, **{f"{state}/disable": "1\n"})
    assert processors.sleep_states(tmp_path).level == OK


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"proc/version": "Linux version 6.6.1 #1 SMP PREEMPT_RT Fri"}, OK),
        ({"proc/version": "Linux version 6.6.1 #1 SMP", "sys/kernel/realtime": "1\n"}, OK),
        ({"proc/version": "Linux version 5.4 #1 SMP PREEMPT Fri"}, OK),
        ({"proc/version": "Linux version 6.1 #1 SMP PREEMPT_DYNAMIC Debian"}, ADVICE),
        ({"proc/version": "Linux version 6.1 SMP PREEMPT_DYNAMIC", "proc/cmdline": "preempt=full"}, OK),
        (
            {
                "proc/version": "Linux version 6.1 SMP PREEMPT_DYNAMIC",
                "sys/kernel/debug/sched/preempt": "none (voluntary) full [full]",
            },
            OK,
        ),
        ({"proc/version": "Linux version 5.4 #1 SMP Fri"}, ADVICE),
    ],
)
def test_preemption_models(tmp_path, files, level):
    assert processors.preemption(put(tmp_path, **files)).level == level


def test_clock_and_timers(tmp_path):
    base = f"{SYSTEM}/clocksource/clocksource0"
    put(tmp_path, **{f"{base}/current_clocksource": "tsc\n", f"{base}/available_clocksource": "tsc hpet \n"})
    assert processors.clock(tmp_path, 1e-9).level == OK
    coarse = processors.clock(tmp_path, 0.004)
    assert coarse.level == PROBLEM
    assert "4000 us" in coarse.text
    put(tmp_path, **{f"{base}/current_clocksource": "hpet\n"})
    assert processors.clock(tmp_path, 1e-9).fix.startswith("echo tsc >")
    put(tmp_path, **{f"{base}/available_clocksource": "hpet acpi_pm \n"})
    assert "tsc=reliable" in processors.clock(tmp_path, 1e-9).fix


def test_hypervisors_are_recognised(tmp_path):
    put(tmp_path, proc__cpuinfo="processor\t: 0\nflags\t\t: fpu vme sse2\n")
    assert processors.virtual(tmp_path).level == OK
    put(tmp_path, proc__cpuinfo="processor\t: 0\nflags\t\t: fpu vme hypervisor sse2\n")
    assert processors.virtual(tmp_path).level == ADVICE
    put(tmp_path, **{"sys/class/dmi/id/sys_vendor": "QEMU\n"})
    assert "QEMU" in processors.virtual(tmp_path).text


def test_siblings_memory_and_swap(tmp_path):
    assert processors.siblings(tmp_path).level == OK
    assert memory.huge_pages(tmp_path).level == OK
    assert memory.swap(tmp_path).level == OK
    assert memory.numa(tmp_path).level == OK
    put(
        tmp_path,
        proc__swaps="Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 8388604 0 -2\n",
        proc__sys__kernel__numa_balancing="1\n",
        **{
            "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
            f"{SYSTEM}/cpu/smt/active": "1\n",
        },
    )
    assert "/dev/sda2" in memory.swap(tmp_path).text
    for found in (
        processors.siblings(tmp_path),
        memory.huge_pages(tmp_path),
        memory.swap(tmp_path),
        memory.numa(tmp_path),
    ):
        assert found.level == ADVICE
        assert found.fix


def test_this_machines_own_files_are_understood(tmp_path):
    """Copies of the real ones; whatever they say, there is an answer."""
    for name in (
        "proc/cmdline",
        "proc/cpuinfo",
        "proc/version",
        "proc/swaps",
        "proc/self/limits",
        "proc/self/status",
    ):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path("/", name).read_bytes())
    for judge in (processors.virtual, processors.preemption, memory.swap):
        assert judge(tmp_path) == judge(Path("/"))
    assert permissions.locked_memory(tmp_path, True).level == permissions.locked_memory(Path("/"), True).level


def test_ports_in_use_are_those_that_somebody_listens_on():
    with socket.socket() as server, socket.socket() as bound:
        server.bind(("127.0.0.1", 0))
        server.listen()
        bound.bind(("127.0.0.1", 0))
        taken, free = server.getsockname()[1], bound.getsockname()[1]
        found = place.listening_ports(Path("/"))
        assert taken in found
        assert free not in found
        endpoints = {1: f"tcp://127.0.0.1:{free}", 2: f"tcp://127.0.0.1:{taken}"}
        told = place.commander_ports(Path("/"), endpoints)
        assert told.level == ADVICE
        assert f"{taken} (beam 2)" in told.text
        assert str(free) not in told.text
        assert place.commander_ports(Path("/"), {1: endpoints[1], 3: "none"}).level == OK
    assert place.port_of("ipc:///tmp/x:1") is None


def test_directories_have_to_be_writable_and_have_space(tmp_path):
    assert place.writable("x", tmp_path / "not" / "yet", 1.0, "key").level == OK
    assert not (tmp_path / "not").exists()
    free_mb = shutil.disk_usage(tmp_path).free / 2**20
    assert place.writable("x", tmp_path, 2 * free_mb, "key").level == PROBLEM
    (tmp_path / "file").write_text("")
    assert place.writable("x", tmp_path / "file", 0.0, "key").level == PROBLEM


def test_a_database_that_does_not_answer_is_a_problem():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens
        found = place.tango_database(f"127.0.0.1:{bound.getsockname()[1]}", True)
    assert found.level == PROBLEM
    assert place.tango_database("nonsense", True).level == PROBLEM
    assert place.tango_database("", True).level == OK
    assert place.tango_database("", False).level == ADVICE


def test_versions_are_compared_as_numbers():
    assert software.is_at_least("10.3.1", "9.4")
    assert software.is_at_least("0.61.0rc1", "0.61")
    assert not software.is_at_least("1.9", "1.26")
    have = {"numba": "0.70.1", "numpy": "1.9"}

    def installed(name):
        if name not in have:
            raise PackageNotFoundError(name)
        return have[name]

    assert software.versions(["numba>=0.61"], installed).level == OK
    old = software.versions(["numba>=0.61", "numpy>=1.26", "pyzmq>=25.1"], installed)
    assert old.level == PROBLEM
    assert old.text == "numpy 1.9, 1.26 needed; pyzmq missing, 25.1 needed"
    assert software.versions([], installed).level == ADVICE


def test_compiled_kernels_are_found(tmp_path):
    cold = software.kernels(tmp_path)
    assert cold.level == ADVICE
    assert cold.fix == "baldr compile"
    digest = hashlib.sha1(str(Path(kernels.__file__).parent).encode(), usedforsecurity=False).hexdigest()
    put(tmp_path, **{f"kernels_{digest}/loop.run-12.py311.1.nbc": ""})
    assert software.kernels(tmp_path).level == OK


@pytest.fixture
def streams():
    directory = stream_directory("baldr_doctor")
    yield directory
    remove_streams(directory)


def test_streams_of_processes_that_have_ended_are_listed_and_stay(streams, tmp_path):
    with (
        Stream.create("alive", (2, 2), np.int32, streams) as alive,
        Stream.create("dead", (2, 2), np.int32, streams) as dead,
    ):
        alive.write(np.zeros((2, 2), np.int32))
        dead.write(np.zeros((2, 2), np.int32))
        assert leftovers.dead_streams(streams) == []
        gone = (2**22 - 1).to_bytes(4, "little") * dead.n_semaphores  # beyond the largest process number
        os.pwrite(dead.fd, gone, dead.layout.write_pid_offset)
    assert leftovers.dead_streams(streams) == ["dead"]
    found, semaphores = leftovers.leftovers(streams)
    assert found.level == ADVICE
    assert str(stream_path("dead", streams)) in found.fix
    assert semaphores.level == OK
    assert stream_path("dead", streams).exists()
    stream_path("dead", streams).unlink()
    own = leftovers.orphaned_semaphores(streams)
    assert f"/dev/shm/sem.{semaphore_name('dead', 1, streams).strip('/')}" in own
    assert not any("alive" in file for file in own)
    assert leftovers.leftovers(streams)[1].level == ADVICE
