"""Who may ask: keys of a file, of which only digests are stored, each with a limit of its own.

A line holds a name, the sha256 of a key (64 hexadecimal digits) and, if it is limited, its requests a minute; `#` begins a
comment. A digest without salt is enough for random keys, which nobody can guess. The file is read again when it changes.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError

SHAPE = "a line is NAME SHA256 [REQUESTS_A_MINUTE]"

_LINE = re.compile(r"(?P<name>[\w.@-]{1,64})\s+(?P<digest>[0-9a-fA-F]{64})(\s+(?P<limit>[1-9][0-9]{0,8}))?")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Denied:
    """Why a request is not answered: 401, or 429 and after how many seconds it may come again."""

    status: int
    seconds: int = 0

    @property
    def reason(self) -> str:
        if self.status == 401:
            return "Send a key: Authorization: Bearer KEY."
        return f"This key has had its requests; come again in {self.seconds} seconds."

    @property
    def headers(self) -> dict[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": 'Basic realm="name and key", Bearer'}
        return {"Retry-After": str(self.seconds)}


@dataclass
class Key:
    """One line. limit: requests a minute, None for any number; left: how many may come at once."""

    name: str
    digest: str
    limit: float | None
    left: float = field(default=0.0)
    since: float = field(default=0.0)


class Keys:
    """The keys of a file. share: the part of each limit that is this process's, where several answer."""

    def __init__(self, file: str | Path, share: float = 1.0, clock: Callable[[], float] = time.monotonic):
        self._file, self._share, self._clock = Path(file), share, clock
        self._lock = threading.Lock()
        self._changed = self._stamp()
        self._keys = read_keys(self._file)
        self._fill({})

    def asked(self, authorization: str | None, counts: bool = True) -> Key | Denied:
        """Whose request this is, by its Authorization header (Bearer KEY, or Basic with the key as the password).

        counts: whether it is one of the requests that are limited.
        """
        with self._lock:
            self._refresh()
            key_given = presented(authorization)
            digest = _digest(key_given)
            found = None
            # Every key is compared, in full: how long it takes says nothing about any of them.
            for key in self._keys:
                if hmac.compare_digest(digest, key.digest):
                    found = key
            if found is None or not key_given:
                return Denied(401)
            return self._counted(found) if counts and found.limit is not None else found

    def _counted(self, key: Key) -> Key | Denied:
        """A bucket that holds a minute's requests and is filled evenly."""
        assert key.limit is not None
        now, most = self._clock(), max(1.0, key.limit * self._share)
        a_second = key.limit * self._share / 60
        key.left, key.since = min(most, key.left + (now - key.since) * a_second), now
        if key.left < 1:
            return Denied(429, max(1, math.ceil((1 - key.left) / a_second)))
        key.left -= 1
        return key

    def _stamp(self) -> tuple[int, int]:
        try:
            about = self._file.stat()
        except OSError:
            return (0, 0)
        return about.st_mtime_ns, about.st_ino

    def _refresh(self) -> None:
        if (stamp := self._stamp()) == self._changed:
            return
        self._changed = stamp
        before = {key.name: key for key in self._keys}
        try:
            self._keys = read_keys(self._file)
        except UserError as error:
            _log.error("%s The keys stay as they were.", error)
            return
        self._fill(before)

    def _fill(self, before: dict[str, Key]) -> None:
        now = self._clock()
        for key in self._keys:
            known = before.get(key.name)
            same = known is not None and known.limit == key.limit
            key.left = known.left if known and same else max(1.0, (key.limit or 0) * self._share)
            key.since = known.since if known and same else now


def read_keys(file: Path) -> list[Key]:
    """The keys of a file; UserError names the line that is not one, or the file that cannot be read."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The API keys {file} cannot be read: {error}.") from None
    found: list[Key] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise UserError(f"The API keys {file}, line {number}: {SHAPE}.")
        if match["digest"].lower() == _digest(""):
            raise UserError(f"The API keys {file}, line {number}: it is the digest of an empty key.")
        if any(match["name"] == key.name for key in found):
            raise UserError(f"The API keys {file}, line {number}: {match['name']} occurs twice.")
        limit = float(match["limit"]) if match["limit"] else None
        found.append(Key(match["name"], match["digest"].lower(), limit))
    if not found:
        raise UserError(f"The API keys {file}: it holds no key; {SHAPE}.")
    return found


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def presented(authorization: str | None) -> str:
    """The key of an Authorization header; empty where there is none."""
    kind, _, value = (authorization or "").strip().partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""
