"""A program that kills processes while they save models, and prints what is wrong with the file.

It takes the path of the file and the number of processes to kill. Each is a fork of this one, which
saves one version of a model after the other to the same path, slowly, and is killed at a random
moment. The file must then be the last version that was complete, or the one being written.
"""

import io
import itertools
import mmap
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

import minidl

PIECES = 97  # bytes that are written at once

plain_open = Path.open


class SlowFile(io.FileIO):
    """A file that is written a few bytes at a time, with time to be killed between them."""

    def write(self, data):
        for start in range(0, len(data), PIECES):
            super().write(data[start : start + PIECES])
            time.sleep(0.0001)
        return len(data)


def slow_open(self, mode="r", **kwargs):
    return SlowFile(self, mode) if "r" not in mode else plain_open(self, mode, **kwargs)


def version_of(number):
    """A model whose every weight is the number."""
    model = minidl.Sequential([minidl.Dense(32), minidl.Dense(32)], input_shape=(32,))
    for parameter in model.parameters():
        parameter.data[...] = number
    return model


def save_versions(path, state):
    """Save one version after the other, never to return."""
    for number in itertools.count(int(state[1]) + 1):
        model = version_of(number)
        state[0] = number
        minidl.save(model, path)
        state[1] = number


def killed(path, state, delay):
    """Kill a process some seconds after it has begun to save; its exit status."""
    state[0] = 0
    child = os.fork()
    if not child:
        try:
            save_versions(path, state)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    while not state[0] and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.0002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(path, kills):
    moments = random.Random(0)
    # The number of the version that was begun last, and of that which is complete.
    state = np.frombuffer(mmap.mmap(-1, 16), np.int64)
    Path.open = slow_open
    start = time.perf_counter()
    minidl.save(version_of(0), path)
    seconds = time.perf_counter() - start
    for _ in range(kills):
        # Within the time of a few files, whatever one takes on this machine.
        status = killed(path, state, moments.uniform(0, 2.5 * seconds))
        if status != -signal.SIGKILL:
            print(f"the process ended by itself, with {status}")
        begun, complete = state.tolist()
        found = np.unique(np.concatenate([p.data.ravel() for p in minidl.load(path).parameters()]))
        if len(found) != 1 or found[0] not in (complete, begun):
            print(f"found {found} after {complete} was complete and {begun} begun")
        state[1] = found[0]
    if state[1] < kills // 10:
        print(f"hardly any file was completed: {state[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
