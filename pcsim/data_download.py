"""Download the files of a data set: mirrors, retries, resuming, checksums, one process at a time.

A file appears under its name only when it is whole and its checksum is right. What an interrupted
download left is kept in a hidden folder ``.NAME.part`` beside it and continued by the next call.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pcsim.data_registry import Remote, Source
from pcsim.messages import refusal

__all__ = ["ATTEMPTS", "download", "is_right"]

ATTEMPTS = 3
"""Tries at each address while the failure may pass."""
PAUSE = 1.0
"""Seconds before the second try, twice as many before the third."""
TIMEOUT = 30.0
"""Seconds without an answer or a byte."""
CHUNK = 2**16
EVERY = 5.0
"""Seconds between lines of progress where there is no terminal."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes of failures that may pass."""


class Refused(Exception):
    """An address that answers, but will not give the file: no use in asking again."""


def is_right(path: Path, remote: Remote) -> bool:
    """Return whether the file is there with the checksum of one of its sources, if any has one."""
    import pooch

    if not path.is_file():
        return False
    known = [source.checksum for source in remote.sources]
    return any(one is None or _matches(pooch.file_hash, path, one) for one in known)


def _matches(file_hash: Callable[..., str], path: Path, checksum: str) -> bool:
    algorithm, _, value = checksum.partition(":")
    return file_hash(str(path), alg=algorithm) == value


def download(remote: Remote, folder: Path) -> Path:
    """Put a file into a folder, unless it is there already and right; return its path.

    Raises
    ------
    RuntimeError
        If no source gives it.
    ValueError
        If a source gives it, but with another checksum.
    """
    path = folder / remote.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f".{remote.name}.lock"):
        if is_right(path, remote):
            return path
        failures: list[str] = []
        mismatch = False
        for source in remote.sources:
            failure = _from_source(remote, source, folder)
            if failure is None:
                return path
            failures.append(f"{source.url}: {failure}")
            mismatch = mismatch or failure.startswith("checksum")
        with contextlib.suppress(OSError):
            _work(folder, remote).rmdir()  # If nothing has arrived.
        where, found = f"download {remote.name}", "; ".join(failures)
        if mismatch:
            advice = "The file has changed or is tampered with: report it, or give PCSIM_DATA."
            raise ValueError(refusal(where, found, "the file that is known here", advice))
        advice = (
            "Try again when the network is there (what has arrived is kept), or set PCSIM_DATA to "
            "a folder that holds the data (docs/data.md)."
        )
        raise RuntimeError(refusal(where, found, "an answer from the network", advice))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process or thread at a time download a file; the others wait and find it there."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _from_source(remote: Remote, source: Source, folder: Path) -> str | None:
    """Try one address as often as it may help; return what went wrong at last, or None."""
    import pooch
    import requests

    work = _work(folder, remote)
    # Mirrors with the same bytes go on with each other's part; others must not.
    part = work / (source.checksum or "any").replace(":", "_")
    known, urls = {remote.name: source.checksum}, {remote.name: source.url}
    puppy = pooch.create(path=work, base_url="", registry=known, urls=urls)
    failure, tries, best, mismatched = "", 0, _size(part), False
    while tries < ATTEMPTS:
        time.sleep(PAUSE * tries)
        tries += 1
        _sweep(work)
        resumed = _size(part) > 0
        try:
            with _quiet(pooch.get_logger()):
                whole = puppy.fetch(remote.name, downloader=Resuming(part, remote))
            os.replace(whole, folder / remote.name)
            shutil.rmtree(work)
            return None
        except Refused as error:
            return str(error)
        except requests.exceptions.RequestException as error:
            failure = _reason(error)
            # As long as more arrives, it is worth going on.
            tries, best = (0 if _size(part) > best else tries), max(best, _size(part))
        except ValueError:
            failure = f"checksum other than {source.checksum}"
            if mismatched or not resumed:
                break
            # Pooch has removed the file. Its begin may have been of another version: once more.
            mismatched, tries, best = True, 0, 0
    return failure


def _work(folder: Path, remote: Remote) -> Path:
    return folder / f".{remote.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sweep(work: Path) -> None:
    """Remove the temporary files that a killed process left there; only while alone."""
    for left in work.glob("tmp*"):
        left.unlink()


@contextlib.contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Return the innermost reason of a network error, one line."""
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return str(inner or error).splitlines()[0] or type(error).__name__


@dataclass(frozen=True)
class Resuming:
    """A downloader for pooch that goes on where an earlier one stopped."""

    part: Path
    remote: Remote

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download to `part`, continuing it, and move it to `output_file` when it is whole."""
        import requests

        begun = _size(self.part)
        # Without compression on the way, lengths are those of the file.
        headers = {"Accept-Encoding": "identity"}
        if begun:
            headers["Range"] = f"bytes={begun}-"
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=headers) as answer:
            if answer.status_code == 416:
                self.part.unlink(missing_ok=True)
                raise requests.exceptions.ConnectionError("the part that was there does not fit")
            if answer.status_code in PASSING:
                answer.raise_for_status()
            if answer.status_code not in (200, 206):
                raise Refused(f"status {answer.status_code} {answer.reason}")
            self._write(answer, begun if answer.status_code == 206 else 0)
        os.replace(self.part, output_file)

    def _write(self, answer: Any, begun: int) -> None:
        import requests

        length = answer.headers.get("Content-Length", "")
        is_plain = answer.headers.get("Content-Encoding", "identity") == "identity"
        total = begun + int(length) if length.isdigit() and is_plain else None
        progress = Progress(self.remote.name, total or self.remote.size)
        done = begun
        with self.part.open("ab" if begun else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress.show(done)
        progress.end(done)
        if total is not None and done != total:
            raise requests.exceptions.ConnectionError(f"{done} of {total} bytes came")


@dataclass
class Progress:
    """A line on the error stream: renewed on a terminal, now and then elsewhere."""

    name: str
    total: int | None
    said: float = field(default_factory=time.monotonic)

    def show(self, done: int) -> None:
        """Say how far it is, if it is time to."""
        on_terminal = sys.stderr.isatty()
        if time.monotonic() - self.said >= (0.1 if on_terminal else EVERY):
            self.said = time.monotonic()
            print(self._line(done), end="\r" if on_terminal else "\n", file=sys.stderr, flush=True)

    def end(self, done: int) -> None:
        """Say how much came."""
        print(self._line(done), file=sys.stderr, flush=True)

    def _line(self, done: int) -> str:
        whole = f" of {self.total / 1e6:.1f}" if self.total else ""
        return f"{self.name}: {done / 1e6:.1f}{whole} MB"
