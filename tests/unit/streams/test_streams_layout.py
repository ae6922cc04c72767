"""The layout against the table that was measured on the C library."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.errors import RequestError
from baldr_tango.streams import (
    CNT0,
    CNT1,
    CNT2,
    CREATION,
    DATATYPES,
    KEYWORD,
    METADATA,
    WRITE,
    WRITE_TIME,
    Stream,
    StreamLayout,
    semaphore_name,
    shm_directory,
    stream_path,
)

# Checked against files that the library made; the four 16s are times.
REFERENCE_HEADER = struct.Struct("=32s80sB3x3IQB7xQ16s16s16s16sBbB5xQBxH4xQQQBxH64s4x")


def test_header_fields_lie_where_the_library_has_them(shm_dir):
    with Stream.create("baldr1", (32, 16), np.int32, shm_dir) as stream:
        raw = stream.path.read_bytes()
        record = stream.header()
    fields = REFERENCE_HEADER.unpack_from(raw)
    assert REFERENCE_HEADER.size == METADATA.itemsize == 336
    assert fields[0] == b"0.0.01" + 26 * b"\0"
    assert fields[1] == b"baldr1" + 74 * b"\0"
    assert fields[2:9] == (2, 16, 32, 0, 512, 6, 0x2)  # naxis, x, y, z, nelement, datatype, imagetype
    created = struct.unpack("<qq", fields[9])
    assert created == tuple(record["creationtime"])
    assert created[0] > 1_500_000_000
    # shared, location, status, flag, logflag, sem, three counters, write, NBkw
    assert fields[13:24] == (1, -1, 0, 0, 0, 10, 0, 0, 0, 0, 10)


def test_offsets_used_one_by_one_are_those_of_the_header():
    offsets = {name: METADATA.fields[name][1] for name in METADATA.names}
    assert (offsets["creationtime"], offsets["writetime"]) == (CREATION, WRITE_TIME) == (152, 200)
    assert (offsets["cnt0"], offsets["cnt1"], offsets["cnt2"]) == (CNT0, CNT1, CNT2) == (240, 248, 256)
    assert offsets["write"] == WRITE == 264
    assert KEYWORD.itemsize == 120


@pytest.mark.parametrize(
    ("shape", "dtype", "keyword_offset", "read_pid", "write_pid", "size"),
    [
        ((32, 32), "i4", 4432, 5632, 5672, 5712),
        ((12, 12), "f8", 1488, 2688, 2728, 2768),
        ((200, 256, 320), "u2", 32_768_336, 32_769_536, 32_769_576, 32_769_616),
    ],
)
def test_parts_lie_where_they_were_measured(shape, dtype, keyword_offset, read_pid, write_pid, size):
    layout = StreamLayout(shape, np.dtype(dtype))
    assert layout.keyword_offset == keyword_offset
    assert layout.read_pid_offset == read_pid
    assert layout.write_pid_offset == write_pid
    assert layout.file_size == size


def test_new_file_has_exact_size_mode_and_tables(shm_dir):
    with Stream.create("dm1disp02", (12, 12), np.float64, shm_dir) as stream:
        status = stream.path.stat()
        raw = stream.path.read_bytes()
    assert status.st_size == len(raw) == 2768
    assert status.st_mode & 0o777 == 0o600
    assert raw[336:1488] == bytes(12 * 12 * 8)
    for k in range(10):
        assert raw[1488 + 120 * k :][:120] == bytes(16) + b"N" + bytes(103)
    assert raw[2688:] == 20 * struct.pack("<i", -1)


def test_circular_stream_has_tables_per_slice(shm_dir):
    with Stream.create("ring", (7, 3, 5), np.uint16, shm_dir, circular=True) as stream:
        header = stream.header()
        assert int(header["imagetype"]) & 0xF000F == 0x20001
        assert stream.path.stat().st_size == 336 + 7 * 3 * 5 * 2 + 10 * 120 + 2 * 40 + 7 * (16 + 16 + 8)


def test_data_types_have_the_codes_of_the_library():
    codes = {str(dtype): code for code, dtype in DATATYPES.items()}
    assert codes == {
        "uint8": 1, "int8": 2, "uint16": 3, "int16": 4, "uint32": 5, "int32": 6, "uint64": 7, "int64": 8,
        "float32": 9, "float64": 10, "complex64": 11, "complex128": 12, "float16": 13,
    }  # fmt: skip


def test_semaphore_files_have_the_names_of_the_library(shm_dir):
    Stream.create("baldr3", (4,), np.int8, shm_dir).close()
    stem = f"sem..dev.shm.{shm_dir.name}.baldr3_sem"
    files = {path.name: path.stat() for path in Path("/dev/shm").glob(stem + "*")}
    assert set(files) == {f"{stem}{k:02d}" for k in range(10)} | {stem + "log"}
    assert {status.st_size for status in files.values()} == {32}
    assert all(status.st_mode & 0o600 == 0o600 for status in files.values())
    assert semaphore_name("baldr1", 1, "/dev/shm") == "/.dev.shm.baldr1_sem01"
    assert semaphore_name("baldr1", "log", "/dev/shm") == "/.dev.shm.baldr1_semlog"


class TestDirectory:
    def test_given_one_wins(self, shm_dir, monkeypatch):
        monkeypatch.setenv("MILK_SHM_DIR", "/dev")
        assert shm_directory(shm_dir) == shm_dir

    def test_variable_comes_next(self, shm_dir, monkeypatch):
        monkeypatch.setenv("MILK_SHM_DIR", str(shm_dir))
        assert shm_directory() == shm_directory("") == shm_dir
        assert stream_path("dm1") == shm_dir / "dm1.im.shm"

    def test_variable_without_directory_is_ignored(self, shm_dir, monkeypatch):
        monkeypatch.setenv("MILK_SHM_DIR", str(shm_dir / "absent"))
        assert shm_directory() == Path("/dev/shm")

    @pytest.mark.parametrize("explicit", [False, True])
    def test_semaphores_are_spelled_as_the_variable_is(self, explicit, shm_dir, monkeypatch):
        """The library keeps a final slash; naming the same directory must lead to the same semaphores."""
        monkeypatch.setenv("MILK_SHM_DIR", f"{shm_dir}/")
        name = semaphore_name("dm1", 1, shm_dir if explicit else None)
        assert name == f"/.dev.shm.{shm_dir.name}..dm1_sem01"


@pytest.mark.parametrize("name", ["", "a/b", "x" * 80, "caf\u00e9", "new\nline", "nul\0"])
def test_impossible_names_are_refused(name, shm_dir):
    with pytest.raises(RequestError, match="stream name"):
        Stream.create(name, (2, 2), np.int32, shm_dir)


def test_longest_name_works(shm_dir):
    name = 79 * "x"
    with Stream.create(name, (2, 2), np.int32, shm_dir) as stream:
        assert stream.header()["name"] == name.encode()


@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        ((), "i4", {}),
        ((0, 3), "i4", {}),
        ((1, 1, 1, 1), "i4", {}),
        ((4, 4), "U4", {}),
        ((4, 4), "longdouble", {}),
        ((4, 4), "i4", {"circular": True}),
        ((4, 4), "i4", {"semaphores": 101}),
        ((4, 4), "i4", {"keywords": -1}),
    ],
)
def test_impossible_streams_are_refused(shape, dtype, options, shm_dir):
    with pytest.raises(RequestError, match=r"expected|cannot hold|needs 3 axes"):
        Stream.create("bad", shape, dtype, shm_dir, **options)
    assert list(shm_dir.iterdir()) == []
