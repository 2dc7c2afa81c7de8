"""Files are replaced as a whole or not at all, and what is in them is checked before it is taken."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import msem
from msem.data.storage import Fields, digest, json_text, parsed, replacing, signed, verified, write_json
from msem.errors import DataError
from test_moments import moments
from test_summarize import sample


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_permissions_are_those_of_the_umask_or_of_the_old_file(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    assert mode(path) == 0o640
    path.chmod(0o664)
    write_json(path, {"a": 2})
    assert mode(path) == 0o664
    assert parsed(path.read_bytes()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_kept(tmp_path: Path) -> None:
    path, link, hanging = (tmp_path / name for name in ("a.json", "link.json", "hanging.json"))
    path.write_text("before")
    link.symlink_to("a.json")
    hanging.symlink_to(tmp_path / "b.json")
    for one, target in ((link, path), (hanging, tmp_path / "b.json")):
        write_json(one, {"a": 1})
        assert one.is_symlink()
        assert parsed(target.read_bytes()) == {"a": 1}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail() -> None:
        with replacing(path) as file:
            file.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


SAVES: dict[str, Callable[[Path], None]] = {
    "moments.json": lambda path: moments().save(path),
    "statistics.json": lambda path: msem.summarize(sample(), cluster="g").save(path),
    "statistics.parquet": lambda path: msem.summarize(sample(), cluster="g").save(path),
}


@pytest.mark.parametrize("name", SAVES)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    SAVES[name](path)
    before = path.read_bytes()

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
        with pytest.raises(OSError, match=r"large|error"):
            SAVES[name](path)

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_readers_meet_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    contents = [signed({"values": [float(k)] * 20_000}) for k in range(2)]
    write_json(path, contents[0])
    stop = threading.Event()

    def write(content: dict[str, object]) -> None:
        while not stop.is_set():
            write_json(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    try:
        for _ in range(50):
            verified(path, parsed(path.read_bytes()))
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_what_cannot_be_replaced_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join()
    assert json.loads(found[0]) == {"a": 1}
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_folders_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_json(tmp_path / "none" / "a.json", {})
    assert caught.value.filename == str(tmp_path / "none" / "a.json")
    assert str(caught.value).endswith(f"there is no folder {tmp_path / 'none'}")


def test_digests_do_not_depend_on_the_order_of_names() -> None:
    one, two = {"a": 0.1, "b": [1, None, "x"]}, {"b": [1, None, "x"], "a": 0.1}
    assert digest(one) == digest(two)
    assert verified("a", parsed(json_text(signed(one)).encode())) == two
    for wrong in (
        one,
        {**one, "sha256": None},
        {**signed(one), "a": 0.2},
        {**signed(one), "a": float("inf")},
    ):
        with pytest.raises(DataError, match="damaged or cut short"):
            verified("a", wrong)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 1}', b'{"b": {"a": 1, "a": 1}}', b"[" * 200_000],
)
def test_what_is_no_mapping_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"no names|decode|Expecting|not a number|name twice|too deeply"):
        parsed(text)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", 1), ("texts", "ab"), ("texts", ["a", 1]), ("flag", 1), ("flag", "true"), ("whole", True),
        ("whole", 1.0), ("whole", -1), ("wholes", [1.0]), ("wholes", [-1]), ("wholes", [2**70]), ("number", "1"),
        ("number", True), ("number", 10**400), ("number", float("inf")), ("number", [1.0]),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused(kind: str, value: object) -> None:
    given = Fields({"a": value}, ("a",))
    with pytest.raises(ValueError, match="'a'"):
        getattr(given, kind)("a", *[True] * (kind == "flag"))


ODD = [
    *(None, 1.0, [1.0, 2.0], [[1.0], [2.0, 3.0]], [[1.0, "2"]], [[1.0, True]], [[None, 1.0]]),
    *([[float("inf"), 1.0]], [[10**400, 1]], [[[1.0], [2.0]]], np.zeros((1, 3)), np.array([["a", "b"]])),
]


@pytest.mark.parametrize("value", ODD)
def test_arrays_of_another_shape_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="'a'"):
        Fields({"a": value}, ("a",)).numbers("a", None, 2)


def test_arrays_are_taken_as_they_are() -> None:
    given = Fields({"a": [[1, 2.5]], "b": [None, 1.0]}, ("a",), ("b", "c"))
    np.testing.assert_array_equal(given.numbers("a", None, 2), [[1, 2.5]])
    np.testing.assert_array_equal(given.numbers("b", 2, gaps=True), [np.nan, 1.0])
    with pytest.raises(ValueError, match="no 'c'"):
        Fields({"a": 1}, ("a", "c"))
    with pytest.raises(ValueError, match="unknown 'a'"):
        Fields({"a": 1}, ())
    with pytest.raises(ValueError, match="no names"):
        Fields([1], ())
