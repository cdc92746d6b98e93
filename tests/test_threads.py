import os
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dc_rt.formats import VIDEO_CODECS
from dc_rt.job.threads import Behind, ahead
from dc_rt.media.write_video import VideoWriter, check_video


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("reader", "writer"))]


def test_items_come_in_order_and_all():
    with ahead(range(1000), depth=3) as items:
        assert list(items) == list(range(1000))
    assert threads() == []


def test_nothing_waits_for_items_after_the_thread_was_stopped():
    with ahead(iter(range(10**9)), depth=2) as items:
        assert next(items) == 0
    assert len(list(items)) <= 3  # what was read ahead


def test_reading_goes_ahead_but_no_further_than_told():
    taken = []

    def source():
        for i in range(100):
            taken.append(i)
            yield i

    with ahead(source(), depth=4) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 5
        while len(taken) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(taken) == 5  # the one given out, and four ahead of it


def test_an_error_of_the_source_comes_after_the_items_before_it():
    def source():
        yield 1
        raise OSError("the disk is gone")

    with ahead(source(), depth=2) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(items)
    assert threads() == []


def test_leaving_early_stops_the_thread_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    def read_and_fail():
        with ahead(source(), depth=2) as items:
            raise LookupError(next(items))

    with pytest.raises(LookupError):
        read_and_fail()
    assert closed.is_set()
    assert threads() == []


def test_calls_run_in_order_and_are_done_at_the_end():
    done = []
    with Behind(depth=2) as writer:
        for i in range(100):
            writer.submit(done.append, i)
    assert done == list(range(100))
    assert threads() == []


def test_an_error_of_a_call_reaches_the_caller_and_later_calls_do_not_run():
    done = []

    def fail():
        raise OSError(28, "No space left on device")

    def submit_many():
        with Behind(depth=1) as writer:
            writer.submit(fail)
            for i in range(1000):
                writer.submit(done.append, i)

    with pytest.raises(OSError, match="No space left"):
        submit_many()
    assert done == []
    assert threads() == []


def test_an_error_of_the_last_call_is_not_lost():
    def fail():
        time.sleep(0.1)
        raise OSError("late")

    with pytest.raises(OSError, match="late"), Behind(depth=5) as writer:
        writer.submit(fail)


def test_the_callers_own_error_prevails_and_the_calls_before_it_run():
    done = []

    def submit_and_fail():
        with Behind(depth=5) as writer:
            writer.submit(done.append, 1)
            raise LookupError

    with pytest.raises(LookupError):
        submit_and_fail()
    assert done == [1]
    assert threads() == []


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system tells no thread's scheduling")
@pytest.mark.parametrize("codec", VIDEO_CODECS)
def test_an_encoder_changes_nobodys_scheduling(tmp_path, codec):
    """SVT-AV1 takes real-time priority where root runs it, and what is started next inherits that."""

    def scheduling():
        return {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()}

    before = scheduling()
    with VideoWriter(tmp_path / "clip", Fraction(24), 64, 64, codec=codec) as writer:
        writer.write(np.zeros((64, 64), np.uint16))
        assert scheduling() == before
    check_video(codec, 64, 64)
    assert scheduling() == before
