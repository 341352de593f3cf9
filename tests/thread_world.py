"""A world whose ranks are threads of one process, for tests of what they exchange."""

import threading
from concurrent.futures import ThreadPoolExecutor

import minidl

SECONDS = 20  # after which a rank that waits for another gives up


class ThreadWorld(minidl.World):
    """One rank; all share a barrier and a place for what each of them brings."""

    def __init__(self, rank, size, meet, brought):
        self.rank, self.size = rank, size
        self._meet, self._brought = meet, brought

    def _exchange(self, array):
        self._brought[self.rank] = array.copy()
        self.barrier()
        brought = list(self._brought)
        self.barrier()  # before somebody brings the next
        return brought

    def allreduce(self, array):
        array[...] = sum(self._exchange(array))

    def broadcast(self, array):
        array[...] = self._exchange(array)[0]

    def barrier(self):
        self._meet.wait(SECONDS)

    def abort(self, message):
        self._meet.abort()
        raise RuntimeError(message)


def on_ranks(size, work):
    """What `work(world)` returns on each rank of a world, or the first error of one."""
    meet, brought = threading.Barrier(size), [None] * size
    worlds = [ThreadWorld(rank, size, meet, brought) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, worlds))
