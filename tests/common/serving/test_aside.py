"""Work beside answering: it delays nobody, fails for nobody, and does not pile up."""

import logging
import threading
import time
import weakref

from common.serving.aside import Aside


def test_it_is_done_in_order_and_what_fails_is_left_out(caplog):
    caplog.set_level(logging.WARNING)
    aside, done = Aside("Notes"), []

    def fail():
        raise OSError("the disk is full")

    for work in (lambda: done.append(1), fail, fail, lambda: done.append(2)):
        aside.put(work)
    held = threading.Event()
    aside.put(held.is_set)
    left = weakref.ref(held)
    del held, work
    aside.finish(30)
    assert done == [1, 2]
    # Waiting for more, it holds nothing of what is done.
    assert left() is None
    # Said once, and not for each.
    assert caplog.text.count("Notes: some are left out: OSError: the disk is full") == 1


def test_who_puts_does_not_wait_for_work_that_lasts(caplog):
    caplog.set_level(logging.WARNING)
    aside, lasts, done = Aside("Notes", most=3), threading.Event(), []
    try:
        begun = time.monotonic()
        begins = threading.Event()
        aside.put(lambda: begins.set() or lasts.wait(60))
        # It is no longer among those that wait.
        assert begins.wait(30)
        for i in range(100):
            aside.put(lambda i=i: done.append(i))
        aside.finish(0.01)
        assert time.monotonic() - begun < 30 and not done
        assert "too much of it waits" in caplog.text
    finally:
        lasts.set()
    end = time.monotonic() + 30
    while len(done) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    # The first ones, as many as may wait, with one more where the thread had taken the first by then.
    assert done[:2] == [0, 1] and len(done) <= 4
