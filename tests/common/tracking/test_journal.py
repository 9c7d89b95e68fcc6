"""What is logged reaches the store in order and once, whatever happens to the process, the disk and the store."""

import resource
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.tracking.journal import JOURNAL, Journal, Sender


class Unreachable(Exception):
    pass


def filled(folder, n):
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)
    for i in range(n):
        journal.append({"i": i})
    journal.close()
    return folder


@given(cut=st.integers(0, 45), garbage=st.binary(max_size=30))
def test_what_a_killed_process_left_is_a_beginning_of_what_it_logged(tmp_path_factory, cut, garbage):
    folder = filled(tmp_path_factory.mktemp("journal"), 5)
    content = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).write_bytes(content[:cut] + garbage.replace(b"\n", b""))
    journal = Journal(folder)
    assert journal.entries == [{"i": i} for i in range(content[:cut].count(b"\n"))]
    journal.append({"i": "next"})
    journal.close()
    assert Journal(folder).entries[-1] == {"i": "next"}


def test_an_entry_that_has_no_room_on_the_disk_leaves_no_part(tmp_path):
    journal = Journal(filled(tmp_path / "j", 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
        with pytest.raises(UserError, match=r"journal.jsonl cannot be written: File too large"):
            journal.append({"text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append({"i": 3})
    assert Journal(tmp_path / "j").entries == [{"i": i} for i in range(4)]


def test_a_store_that_comes_and_goes_is_sent_everything_in_order(tmp_path):
    sent, away, reported = [], threading.Event(), []
    away.set()

    def deliver(entries):
        if away.is_set():
            raise Unreachable("no answer")
        sent.extend(entries)

    journal = Journal(filled(tmp_path / "j", 2))
    sender = Sender(journal, deliver, (Unreachable,), lambda a, b: True, reported.append)
    for i in range(2, 50):
        sender.append({"i": i})
    assert sent == [] and not sender.close(patience=0.3)
    away.clear()
    journal = Journal(tmp_path / "j")
    again = Sender(journal, deliver, (Unreachable,), lambda a, b: True)
    assert again.close(patience=10) and sent == [{"i": i} for i in range(50)]
    assert len(reported) == 1 and "no answer" in reported[0] and str(tmp_path) in reported[0]


def test_what_was_sent_is_not_sent_again(tmp_path):
    sent = []
    for n in (3, 2):
        journal = Journal(tmp_path)
        sender = Sender(journal, sent.extend, (Unreachable,))
        for _ in range(n):
            sender.append({"n": len(journal.entries)})
        assert sender.close(patience=10)
        journal.close()
    assert sent == [{"n": i} for i in range(5)]


def test_a_fault_of_the_program_is_not_taken_for_the_stores(tmp_path):
    def deliver(entries):
        raise KeyError("a bug")

    sender = Sender(Journal(tmp_path), deliver, (Unreachable,))
    sender.append({})
    with pytest.raises(KeyError):
        sender.close(patience=10)


def test_how_much_was_sent_is_read_from_a_folder_of_an_earlier_version_too(tmp_path):
    (filled(tmp_path / "j", 3) / "journal.told").write_text("2")
    journal = Journal(tmp_path / "j")
    assert journal.pending() == [{"i": 2}]
    journal.forget()
    journal.close()
    assert len(Journal(tmp_path / "j").pending()) == 3


def test_a_stopped_sender_sends_nothing_more(tmp_path):
    sent = []
    sender = Sender(Journal(tmp_path), sent.extend, (Unreachable,))
    sender.stop(10)
    sender.append({})
    assert sent == [] and sender.journal.pending() == [{}]
