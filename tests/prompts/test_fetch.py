"""Getting published files: checked, whole, gone on with, and a way out where it cannot be done."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from ccai_core.errors import DataError
from ccai_core.prompts import fetch as fetching
from ccai_core.prompts.checksums import git_blob_id, is_published, known_file
from ccai_core.prompts.fetch import data_directory, fetch, install, path_of
from ccai_core.prompts.registry import SOURCES, SourceFile, SourceInfo

CONTENT = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(10_000))


class Handler(BaseHTTPRequestHandler):
    """A file server that goes on where it is asked to, and can fail on purpose."""

    mode: ClassVar[str] = ""
    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        Handler.asked.append(start)
        if Handler.mode == "missing":
            self.send_error(404)
            return
        body = b"<html>Please sign in</html>" if Handler.mode == "page" else CONTENT
        offset = 0
        if start and Handler.mode not in ("page", "no ranges"):
            offset = int(start.removeprefix("bytes=").rstrip("-"))
            if offset >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if offset else 200)
        self.send_header("Content-Length", str(len(body) - offset))
        self.end_headers()
        end = offset + 100_000 if Handler.mode == "breaks" else len(body)
        self.wfile.write(body[offset:end])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("CCAI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Handler, "mode", "")
    monkeypatch.setattr(Handler, "asked", [])
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def source(url: str, content: bytes = CONTENT, name: str = "some") -> SourceInfo:
    file = SourceFile(
        name=f"{name}/file.bin",
        url=f"{url}/file.bin",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return SourceInfo(
        name=name, title="Some prompts", licence="MIT", attribution="Them.", files=(file,),
        harmful=True,
    )  # fmt: skip


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# --- what works -----------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_its_terms_lie_beside_it(server: str, tmp_path: Path) -> None:
    some = source(server)
    assert fetch(some) == fetch(some) == [tmp_path / "data" / "some" / "file.bin"]
    assert path_of(some.files[0]).read_bytes() == CONTENT
    assert Handler.asked == [None]
    assert visible(tmp_path / "data" / "some") == ["file.bin", "some-NOTICE.txt"]
    notice = (tmp_path / "data" / "some" / "some-NOTICE.txt").read_text()
    assert "MIT" in notice
    assert "Them." in notice
    assert "CONTENT WARNING" in notice


def test_a_damaged_copy_is_fetched_again(server: str) -> None:
    some = source(server)
    [path] = fetch(some)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert fetch(some)[0].read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_was(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = source(server)
    monkeypatch.setattr(Handler, "mode", "breaks")
    for _ in range(3):
        with pytest.raises(
            DataError, match=r"ended after [\d,]+ of [\d,]+ bytes; what came is kept"
        ):
            fetch(some)
        assert not path_of(some.files[0]).exists()
    monkeypatch.setattr(Handler, "mode", "")
    assert fetch(some)[0].read_bytes() == CONTENT
    assert Handler.asked == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


@pytest.mark.parametrize("mode", ["", "no ranges"])
@pytest.mark.parametrize("left", [b"of something else", CONTENT[:5000], CONTENT, CONTENT + b"more"])
def test_whatever_an_earlier_try_left_the_file_comes_out_right(
    server: str, monkeypatch: pytest.MonkeyPatch, mode: str, left: bytes
) -> None:
    monkeypatch.setattr(Handler, "mode", mode)
    some = source(server)
    target = path_of(some.files[0])
    target.parent.mkdir(parents=True)
    target.with_name(".file.bin.part").write_bytes(left)
    assert fetch(some)[0].read_bytes() == CONTENT
    assert not target.with_name(".file.bin.part").exists()
    if mode == "no ranges":
        assert len(Handler.asked) == 1  # the whole file came, and took the place of what was left


def test_two_at_once_fetch_it_once(server: str) -> None:
    some = source(server)
    threads = [threading.Thread(target=fetch, args=(some,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path_of(some.files[0]).read_bytes() == CONTENT
    assert len(Handler.asked) == 1


def test_a_file_known_by_its_git_blob_id(server: str, tmp_path: Path) -> None:
    path = tmp_path / "hello.txt"
    path.write_bytes(b"hello\n")
    assert git_blob_id(path) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    file = SourceFile(name="a", url="http://x", git_blob=git_blob_id(path))
    assert is_published(path, file)
    path.write_bytes(b"hallo\n")
    assert not is_published(path, file)
    assert known_file(path) is None


def test_every_published_file_can_be_checked() -> None:
    for info in SOURCES.values():
        for file in info.files:
            assert len(file.sha256 or "") == 64 or len(file.git_blob or "") == 40, file.name
            assert file.url.startswith("https://")
            assert info.licence != "NOASSERTION"
            assert info.attribution
    names = [file.name for info in SOURCES.values() for file in info.files]
    assert len(names) == len(set(names))
    assert [info.name for info in SOURCES.values() if info.restricted and info.files] == []


def test_where_data_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CCAI_DATA", raising=False)
    monkeypatch.setenv("CCAI_CACHE", "/cache")
    assert data_directory() == Path("/cache/data")
    monkeypatch.setenv("CCAI_DATA", "~/mine")
    assert data_directory() == Path.home() / "mine"


# --- what does not --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["missing", "no server", "silent"])
def test_without_network_it_names_file_place_and_way_out(
    server: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(Handler, "mode", mode)
    url = server
    if mode == "no server":
        url = "http://127.0.0.1:9"  # the discard port; nothing listens
    if mode == "silent":
        monkeypatch.setattr(fetching, "_TIMEOUT_S", 0.2)
        waits = ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # accepts and never answers
        url = f"http://127.0.0.1:{waits.server_port}"
    with pytest.raises(DataError, match="cannot be fetched") as told:
        fetch(source(url))
    if mode == "silent":
        waits.server_close()
    said = str(told.value)
    assert f"{url}/file.bin" in said
    assert str(data_directory() / "some" / "file.bin") in said
    assert "fetch some --file file.bin" in said
    assert not path_of(source(url).files[0]).exists()


def test_another_file_at_its_address_is_not_taken(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "mode", "page")
    some = source(server)
    with pytest.raises(DataError, match="is not the published file"):
        fetch(some)
    assert visible(path_of(some.files[0]).parent) == []
    assert not path_of(some.files[0]).with_name(".file.bin.part").exists()


def test_a_good_copy_is_not_touched_when_another_file_of_the_source_fails(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = source(server)
    [path] = fetch(some)
    other = SourceFile(name="some/other.bin", url=f"{server}/x", sha256="0" * 64)
    with pytest.raises(DataError, match="is not the published file"):
        fetch(some.model_copy(update={"files": (*some.files, other)}))
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_says_so(server: str) -> None:
    data_directory().parent.mkdir(exist_ok=True)
    data_directory().write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be written .*set CCAI_DATA"):
        fetch(source(server))


def test_members_only_sets_are_neither_fetched_nor_copied(server: str, tmp_path: Path) -> None:
    practice = SOURCES["ailuminate-practice"]
    with pytest.raises(DataError, match=r"is members-only.* --file"):
        fetch(practice)
    (tmp_path / "practice.csv").write_text("x")
    with pytest.raises(DataError, match="is read where it is, never copied"):
        install(practice, tmp_path / "practice.csv")
    assert not data_directory().exists()


# --- from elsewhere -------------------------------------------------------------------------------


def test_a_file_that_was_downloaded_elsewhere_is_checked_and_taken_in(
    server: str, tmp_path: Path
) -> None:
    some = source(server)
    given = tmp_path / "download (1)"
    given.write_bytes(CONTENT)
    assert install(some, given) == path_of(some.files[0])
    assert fetch(some)[0].read_bytes() == CONTENT
    assert Handler.asked == []
    given.write_bytes(b"another")
    with pytest.raises(DataError, match=r"none of the published files of some .*http"):
        install(some, given)
    assert path_of(some.files[0]).read_bytes() == CONTENT
    with pytest.raises(DataError, match="there is no such file"):
        install(some, tmp_path / "nothing")
