"""A program that interrupts `share` wherever Ctrl-C can, and prints what that leaves behind.

CPython looks for signals when a function is entered, after a call of one that is written in C, and
at the end of a loop's body. Each of these places on the way of `share` is tried in a forked process
of its own. Nothing is printed but what is wrong.
"""

import dis
import os
import signal
import sys
import threading
import traceback

from threadpoolctl import threadpool_info, threadpool_limits

from minidl.kernels import blas_threads, helpers, spinning, threads

LOOKS_FOR_SIGNALS = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
FILES = {module.__file__ for module in (blas_threads, helpers, spinning, threads)}
SECONDS = 20  # after which a process that gets no further is ended

running = set()


def threads_of_blas():
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


def work(piece):
    running.add(piece)
    try:
        threading.Event().wait(0.002)  # so that helpers are still busy when the caller is done
    finally:
        running.discard(piece)


def share_interrupted(number):
    """Interrupt at the place of that number; where that was, None if there are not so many."""
    count, last, where = 0, {}, None

    def trace(frame, event, _):
        nonlocal count, where
        here = id(frame)  # the frame itself would hold all that its variables do
        if event == "call":
            last[here] = None
            last[id(frame.f_back)] = None  # a function in Python: signals are looked for inside it
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = last.get(here)
            last[here] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before in LOOKS_FOR_SIGNALS:
                count += 1
                if count == number:
                    where = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        threads.share(work, list(range(6)))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return where


def attempt(number):
    """Interrupt once, then see what is left; whether there was such a place."""
    where = "?"

    def stuck(*_):
        print(f"{number} ({where}): somebody waits for ever", flush=True)
        os._exit(0)

    signal.signal(signal.SIGALRM, stuck)
    signal.alarm(SECONDS)
    threads.share(work, list(range(6)))  # there are helpers now
    where = share_interrupted(number)
    if running:
        print(f"{number} ({where}): pieces are still being written", flush=True)
    meet = threading.Barrier(3, timeout=2)
    try:
        threads.share(lambda _: meet.wait(), [0, 1, 2])
    except threading.BrokenBarrierError:
        print(f"{number} ({where}): fewer threads than before", flush=True)
    if threads_of_blas() - {2}:
        print(f"{number} ({where}): BLAS keeps {threads_of_blas()} threads", flush=True)
    return where is not None


def fork(number):
    """A process that makes one attempt; it exits with 0, or with 1 beyond the last place."""
    child = os.fork()
    if not child:
        status = 2
        try:
            status = 0 if attempt(number) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def main():
    threads.set_num_threads(3)
    threadpool_limits(2, user_api="blas")
    number, statuses = 0, set()
    while not statuses - {0}:
        children = [fork(number + i) for i in range(1, 21)]  # at once
        number += len(children)
        statuses = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    assert statuses <= {0, 1}, "an attempt failed"
    assert number > 20, "hardly any place was found"


if __name__ == "__main__":
    main()
