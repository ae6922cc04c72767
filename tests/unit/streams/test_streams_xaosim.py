"""Streams shared with xaosim, the library of the instrument's alignment scripts, within its limits.

It knows no directory but /dev/shm for its semaphores, refuses no version, posts without cap and creates files
that carry its own version text and no semaphores.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from baldr_tango.errors import BackendError
from baldr_tango.streams import Keyword, Stream, stream_path

shmlib = pytest.importorskip("xaosim.shmlib", reason="xaosim is not installed")

MAP = np.arange(144, dtype=np.float64).reshape(12, 12)


@pytest.fixture
def channel(shm_name):
    with Stream.create(shm_name, (12, 12), np.float64) as stream:
        yield stream


@pytest.fixture
def script(channel):
    """The channel as a script opens it."""
    shm = shmlib.shm(str(channel.path), nosem=False)
    yield shm
    shm.close(erase_file=False)
    for semaphore in shm.sems:
        semaphore.close()


def test_xaosim_reads_what_we_write(channel, script):
    channel.write(MAP)
    script.read_meta_data(verbose=False)
    assert script.mtdata["version"].startswith("0.0.01")
    assert (script.mtdata["x"], script.mtdata["y"], script.mtdata["z"]) == (12, 12, 0)
    assert script.mtdata["nbkw"] == 10
    assert script.get_counter() == 1
    np.testing.assert_array_equal(script.get_latest_data(semid=1), MAP)  # returns: we have posted
    assert script.sems[1].value == channel.semaphores[1].value() == 0
    assert script.sems[0].value == channel.semaphores[0].value() == 1


def test_xaosim_reads_our_keywords(channel):
    channel.set_keyword("RATE", 1000.5, "Hz")
    with contextlib.closing(shmlib.shm(str(channel.path))) as script:
        assert script.kwds[0]["name"] == "RATE"
        assert script.kwds[0]["type"] == "D"
        assert script.kwds[0]["value"] == 1000.5
        assert script.kwds[0]["comment"] == "Hz"


def test_we_read_what_xaosim_writes(channel, script, shm_name):
    with Stream.open(shm_name, shape=(12, 12), dtype=np.float64) as reader:
        assert not reader.wait(1, 0.0)
        script.set_data(MAP)
        assert reader.wait(1, 0.0)
        data, count = reader.read()
        np.testing.assert_array_equal(data, MAP)
        assert count == 1
        assert reader.is_current() is None


def test_posts_above_the_cap_are_drained(channel, script):
    for _ in range(13):
        script.set_data(MAP)
    assert channel.semaphores[1].value() == 13
    assert not channel.semaphores[1].post()
    assert channel.semaphores[1].drain() == 13
    assert not channel.wait(1, 0.0)


def test_rings_agree_on_the_newest_slice(shm_name):
    with (
        Stream.create(shm_name, (3, 2, 4), np.uint16) as ring,
        contextlib.closing(shmlib.shm(str(ring.path))) as script,
    ):
        for number in range(1, 6):
            ring.write_slice(np.full((2, 4), number, np.uint16))
            np.testing.assert_array_equal(script.get_latest_data_slice(), ring.newest_slice()[0])


def test_keywords_of_xaosim_are_read(channel, shm_name):
    with contextlib.closing(shmlib.shm(str(channel.path))) as script:
        script.update_keyword(2, "RATE", 500.25, "Hz")
        script.update_keyword(3, "MODE", "CDS", "readout")
        assert channel.keywords() == {
            "RATE": Keyword("RATE", 500.25, "Hz"),
            "MODE": Keyword("MODE", "CDS", "readout"),
        }


def test_files_made_by_xaosim_need_consent(shm_name):
    with contextlib.closing(shmlib.shm(str(stream_path(shm_name)), data=MAP)):
        with pytest.raises(BackendError, match=r"found version 'xaosim +', expected '0\.0\.01'"):
            Stream.open(shm_name)
        with Stream.open(shm_name, shape=(12, 12), dtype=np.float64, accept_version="xaosim") as reader:
            data, count = reader.read()
            assert reader.n_semaphores == 0
            assert reader.path.stat().st_size == 4096
    np.testing.assert_array_equal(data, MAP)
    assert count == 1


def test_erasing_close_of_xaosim_is_noticed(channel, shm_name):
    """Its `close` deletes the stream unless told otherwise."""
    script = shmlib.shm(str(channel.path), nosem=False)
    script.close()
    assert channel.is_current() == "deleted"
    with pytest.raises(BackendError, match="deleted"):
        channel.read()
