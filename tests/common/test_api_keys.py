"""Keys: who is let in, how often, and what a faulty file says."""

import base64
import hashlib
import os

import pytest

from common.api_keys import Denied, Keys, read_keys
from common.errors import UserError


def line(name, key, limit=""):
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()} {limit}\n"


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "keys"
    found.write_text(
        "# of the team\n\n" + line("ann", "ann's key") + line("bob", "bob's", 6) + line("cy", "cy's", 60)
    )
    return found


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Bearer ann's key", "ann"),
        ("bearer  ann's key ", "ann"),
        ("Basic " + base64.b64encode(b"whoever:ann's key").decode(), "ann"),
        ("Bearer bob's", "bob"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer ann", None),
        ("Bearer ANN'S KEY", None),
        ("ann's key", None),
        ("Basic ann's key", None),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), None),
        ("", None),
        (None, None),
    ],
)
def test_a_key_lets_in_who_sends_it(header, name, file):
    found = Keys(file).asked(header)
    assert found == Denied(401) if name is None else found.name == name
    if name is None:
        assert "Bearer" in found.headers["WWW-Authenticate"] and "Bearer" in found.reason


def test_a_key_is_not_its_digest(file):
    digest = read_keys(file)[0].digest
    assert Keys(file).asked(f"Bearer {digest}") == Denied(401)


def test_a_limit_is_a_minutes_requests_and_fills_evenly(file):
    clock = Clock()
    keys = Keys(file, clock=clock)
    bob, cy = "Bearer bob's", "Bearer cy's"
    assert [keys.asked(bob).name for _ in range(6)] == ["bob"] * 6
    # Six a minute are one in ten seconds.
    assert keys.asked(bob) == Denied(429, 10) and keys.asked(bob).headers == {"Retry-After": "10"}
    assert keys.asked(bob, counts=False).name == "bob"
    assert keys.asked(cy).name == "cy" and keys.asked("Bearer ann's key").name == "ann"
    clock.now += 4
    assert keys.asked(bob) == Denied(429, 6)
    clock.now += 6
    assert keys.asked(bob).name == "bob" and keys.asked(bob) == Denied(429, 10)
    clock.now += 1000
    assert [isinstance(keys.asked(bob), Denied) for _ in range(7)] == [False] * 6 + [True]


def test_several_processes_share_a_limit(file):
    keys = Keys(file, share=1 / 3, clock=Clock())
    assert [isinstance(keys.asked("Bearer bob's"), Denied) for _ in range(3)] == [False, False, True]


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(file, caplog):
    keys = Keys(file, clock=Clock())
    for _ in range(6):
        keys.asked("Bearer bob's")
    file.write_text(line("bob", "bob's", 6) + line("dan", "dan's"))
    os.utime(file, ns=(1, 1))
    assert keys.asked("Bearer ann's key") == Denied(401) and keys.asked("Bearer dan's").name == "dan"
    # A limit that was used up stays used up.
    assert keys.asked("Bearer bob's").status == 429
    file.write_text("nonsense\n")
    os.utime(file, ns=(2, 2))
    assert keys.asked("Bearer dan's").name == "dan" and "line 1" in caplog.text
    file.unlink()
    assert keys.asked("Bearer dan's").name == "dan"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it holds no key; a line is NAME SHA256"),
        ("# nobody\n", "it holds no key"),
        ("ann secret\n", "line 1: a line is NAME SHA256"),
        (line("ann", "a") + line("bob", "b", 0), "line 2: a line is"),
        (line("ann", "a", "ten"), "line 1: a line is"),
        (line("ann", "a") + line("ann", "b"), "line 2: ann occurs twice"),
    ],
)
def test_a_faulty_file_is_refused_by_line(text, reason, tmp_path):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UserError, match=f"{file}.*{reason}"):
        Keys(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere cannot be read"):
        Keys(tmp_path / "nowhere")


def test_an_empty_key_opens_nothing(tmp_path):
    """As `printf %s "$key" | sha256sum` makes one where `key` is not set: a request without a key would have it."""
    file = tmp_path / "keys"
    file.write_text(f"shop {hashlib.sha256(b'').hexdigest()}\n")
    with pytest.raises(UserError, match="line 1: it is the digest of an empty key"):
        Keys(file)
    file.write_text(f"shop {hashlib.sha256(b'sesame').hexdigest()}\n")
    for given in (None, "", "Bearer", "Bearer ", "Basic Og=="):
        assert Keys(file).asked(given) == Denied(401)
