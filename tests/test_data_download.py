"""Downloads, against a server on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pcsim import data, data_download
from pcsim.data_download import download, is_right
from pcsim.data_registry import DATA_SETS, Remote, Source

ROOT = Path(__file__).resolve().parent.parent
PIECE = 3 * data_download.CHUNK
BODY = (bytes(range(256)) * 4096)[: 4 * PIECE + 1000]
RIGHT = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
WRONG = f"sha256:{hashlib.sha256(b'').hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY in the ways that the path asks for."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        record = self.server.record
        with self.server.guard:
            record.append((self.path, self.headers.get("Range")))
            seen = sum(path == self.path for path, _ in record)
        kind = self.path.strip("/").split("/")[0]
        getattr(self, kind)(seen)

    def send(self, body, length=None, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self, seen):
        self.send(BODY)

    def slow(self, seen):
        time.sleep(0.3)
        self.send(BODY)

    def other(self, seen):
        self.send(b"something else")

    def moved(self, seen):
        self.send(b"", status=302, Location="/good/x")

    def gone(self, seen):
        self.send(b"no", status=404)

    def busy(self, seen):
        self.send(b"no", status=503) if seen < 3 else self.send(BODY)

    def down(self, seen):
        self.send(b"no", status=503)

    def broken(self, seen):
        """Breaks off, and goes on where asked to."""
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        rest = BODY[begin:]
        self.send(rest[:PIECE], length=len(rest), status=206 if begin else 200)

    def stuck(self, seen):
        """Breaks off at the same place whatever it is asked."""
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        rest = BODY[begin:]
        sent = rest[: max(PIECE - begin, 0)]
        self.send(sent, length=len(rest), status=206 if begin else 200)

    def stubborn(self, seen):
        """Breaks off once and knows nothing of ranges."""
        self.send(BODY if seen > 1 else BODY[:PIECE], length=len(BODY))

    def overlong(self, seen):
        """Says that the part is as long as the file."""
        if self.headers.get("Range"):
            self.send(b"", status=416)
        else:
            self.send(BODY)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(data_download, "PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.record, running.guard = [], threading.Lock()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield running
        running.shutdown()
        thread.join()


def remote(server, *kinds, checksum=RIGHT):
    return Remote("file.gz", tuple(Source(f"{server.url}/{k}/x", checksum, "here") for k in kinds))


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def parts(folder):
    return [p for work in folder.glob(".*.part") for p in work.iterdir()]


def begun(folder, raw):
    """Put there what an earlier download of RIGHT may have left."""
    (folder / ".file.gz.part").mkdir()
    (folder / ".file.gz.part" / RIGHT.replace(":", "_")).write_bytes(raw)


@pytest.mark.parametrize("kind", ["good", "moved", "busy", "broken", "stubborn"])
@pytest.mark.parametrize("checksum", [RIGHT, f"md5:{hashlib.md5(BODY).hexdigest()}", None])
def test_file_arrives_whole(server, tmp_path, kind, checksum):
    path = download(remote(server, kind, checksum=checksum), tmp_path / "new" / "folder")
    assert path.read_bytes() == BODY
    assert visible(path.parent) == ["file.gz"]
    assert parts(path.parent) == []


def test_second_call_asks_no_one(server, tmp_path, capsys):
    one = remote(server, "good")
    download(one, tmp_path)
    assert capsys.readouterr().err == "file.gz: 0.8 of 0.8 MB\n"
    download(one, tmp_path)
    assert len(server.record) == 1
    assert capsys.readouterr().err == ""


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    download(remote(server, "broken"), tmp_path)
    asked = [what for _, what in server.record]
    assert asked == [None, *(f"bytes={n * PIECE}-" for n in (1, 2, 3, 4))]


def test_what_arrived_is_kept_for_the_next_call(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "gone", Handler.stuck)
    with pytest.raises(RuntimeError, match="what has arrived is kept"):
        download(remote(server, "gone"), tmp_path)
    assert [p.stat().st_size for p in parts(tmp_path)] == [PIECE]
    assert visible(tmp_path) == []
    monkeypatch.setattr(Handler, "gone", Handler.broken)
    assert download(remote(server, "gone"), tmp_path).read_bytes() == BODY
    assert (server.record[-1][1], len(server.record)) == (f"bytes={4 * PIECE}-", 4 + 4)


def test_a_part_that_does_not_fit_is_dropped(server, tmp_path):
    begun(tmp_path, BODY + b"more")
    assert download(remote(server, "overlong"), tmp_path).read_bytes() == BODY


def test_a_part_of_another_version_is_dropped(server, tmp_path):
    begun(tmp_path, b"x" * 2 * PIECE)
    assert download(remote(server, "broken"), tmp_path).read_bytes() == BODY


def test_wrong_checksum_leaves_nothing(server, tmp_path, refused):
    message = refused(download, remote(server, "other"), tmp_path)
    assert f"{server.url}/other/x: checksum other than {RIGHT}" in message
    assert "tampered" in message
    assert visible(tmp_path) == []
    assert parts(tmp_path) == []


def test_a_damaged_file_is_fetched_anew(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(BODY[:-1])
    assert not is_right(tmp_path / "file.gz", remote(server, "good"))
    assert download(remote(server, "good"), tmp_path).read_bytes() == BODY


def test_a_damaged_file_stays_while_there_is_no_better(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(BODY[:-1])
    with pytest.raises(RuntimeError, match="404"):
        download(remote(server, "gone"), tmp_path)
    assert (tmp_path / "file.gz").read_bytes() == BODY[:-1]


def test_missing_file_is_asked_for_once(server, tmp_path):
    with pytest.raises(RuntimeError, match=r"gone/x: status 404 Not Found.*PCSIM_DATA"):
        download(remote(server, "gone"), tmp_path)
    assert len(server.record) == 1


def test_a_busy_server_is_asked_three_times(server, tmp_path):
    with pytest.raises(RuntimeError, match="503"):
        download(remote(server, "down"), tmp_path)
    assert len(server.record) == 3


@pytest.mark.parametrize("bad", ["gone", "other", "down"])
def test_the_next_mirror_is_tried(server, tmp_path, bad):
    assert download(remote(server, bad, "good"), tmp_path).read_bytes() == BODY


def test_sources_of_other_bytes_do_not_mix(server, tmp_path):
    first = Source(f"{server.url}/stuck/x", WRONG, "here")
    both = Remote("file.gz", (first, Source(f"{server.url}/good/x", RIGHT, "here")))
    assert download(both, tmp_path).read_bytes() == BODY
    assert ("/good/x", None) in server.record
    assert is_right(tmp_path / "file.gz", both)


def test_offline_says_what_to_do(server, tmp_path):
    nobody = Remote("file.gz", (Source("http://127.0.0.1:9/x", RIGHT, "here"),))
    with pytest.raises(RuntimeError, match=r"(?s)refused.*set PCSIM_DATA to a folder"):
        download(nobody, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".file.gz.lock"]


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(data_download, "TIMEOUT", 0.05)
    with pytest.raises(RuntimeError, match="timed out"):
        download(remote(server, "slow"), tmp_path)
    assert len(server.record) == 3


def test_unknown_host_says_what_to_do(server, tmp_path):
    nobody = Remote("file.gz", (Source("http://no-such-host.invalid/x", RIGHT, "here"),))
    with pytest.raises(RuntimeError, match=r"(?s)no-such-host.*set PCSIM_DATA to a folder"):
        download(nobody, tmp_path)


def test_many_at_once_ask_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: download(remote(server, "slow"), tmp_path), range(4)))
    assert len(server.record) == 1
    assert {p.read_bytes() for p in got} == {BODY}


def test_a_killed_download_leaves_no_file(server, tmp_path):
    code = (
        "import sys, os, pathlib\n"
        "from pcsim import data_download as d\n"
        "from pcsim.data_registry import Remote, Source\n"
        "d.Progress.show = lambda self, done: os._exit(9)\n"
        f"d.download(Remote('file.gz', (Source('{server.url}/good/x', '{RIGHT}', ''),)), "
        "pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    assert done.returncode == 9
    assert visible(tmp_path) == []
    assert len(parts(tmp_path)) == 2
    assert download(remote(server, "good"), tmp_path).read_bytes() == BODY
    assert parts(tmp_path) == []


@pytest.fixture
def served(server, tmp_path, monkeypatch):
    """A data set whose only file comes from the server; its cache is new."""
    monkeypatch.delenv("PCSIM_DATA", raising=False)
    monkeypatch.setenv("PCSIM_CACHE", str(tmp_path / "cache"))
    line = b"1 1:2 2:1\n"
    monkeypatch.setattr(Handler, "feat", lambda self, seen: self.send(line * 3), raising=False)
    monkeypatch.setattr(
        Handler, "vocab", lambda self, seen: self.send(b"a 1\nb 2\n"), raising=False
    )
    remotes = tuple(
        Remote(name, (Source(f"{server.url}/{kind}/{name}", None, "here"),))
        for name, kind in (("train.feat", "feat"), ("test.feat", "feat"), ("vocab.new", "vocab"))
    )
    one = dataclasses.replace(
        DATA_SETS["newsgroups"], remotes=remotes, sizes={"train": None, "test": 3}
    )
    monkeypatch.setitem(DATA_SETS, "newsgroups", one)
    return server


def test_nothing_is_fetched_unasked(served):
    with pytest.raises(RuntimeError, match="Run 'pcsim data fetch newsgroups', or set PCSIM_DATA"):
        data.load("newsgroups")
    assert served.record == []


def test_fetched_once_and_loaded(served, tmp_path):
    got = data.load("newsgroups", split="test", download=True)
    assert got["count"].values.tolist() == [[2, 1]] * 3
    assert got["word"].values.tolist() == ["a", "b"]
    assert len(served.record) == 3
    data.load("newsgroups", download=True)
    data.load("newsgroups")
    assert len(served.record) == 3
    assert data.where("newsgroups")["train"] == tmp_path / "cache" / "data" / "newsgroups"


def test_a_fetched_folder_serves_elsewhere(served, tmp_path, monkeypatch):
    assert data.fetch("newsgroups", folder=tmp_path / "stick") == tmp_path / "stick" / "newsgroups"
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path / "stick"))
    assert data.load("newsgroups", split="test").sizes == {"document": 3, "word": 2}


def test_another_number_of_documents_is_refused(served, monkeypatch, refused):
    one = dataclasses.replace(DATA_SETS["newsgroups"], sizes={"train": None, "test": 4})
    monkeypatch.setitem(DATA_SETS, "newsgroups", one)
    message = refused(data.load, "newsgroups", split="test", download=True)
    assert "found 3 documents in" in message


def test_command_fetches(served, tmp_path, monkeypatch, capsys):
    from pcsim.cli import main

    with pytest.raises(SystemExit) as code:
        main(["data", "fetch", "newsgroups", "-o", str(tmp_path / "out")])
    assert code.value.code == 0
    assert capsys.readouterr().out == f"newsgroups: {tmp_path / 'out' / 'newsgroups'}\n"
    assert (tmp_path / "out" / "newsgroups" / "vocab.new").read_bytes() == b"a 1\nb 2\n"


def test_command_refuses_an_unknown_name_before_fetching(served, capsys):
    from pcsim.cli import main

    with pytest.raises(SystemExit) as code:
        main(["data", "fetch", "newsgroups", "mnits"])
    assert code.value.code == 2
    assert "Did you mean 'mnist'?" in capsys.readouterr().err
    assert served.record == []


def test_import_of_data_loads_no_downloader():
    code = "import sys, pcsim.data; print(*{'pooch', 'requests', 'PIL'} & set(sys.modules))"
    environment = {k: v for k, v in os.environ.items() if k != "PCSIM_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "")
