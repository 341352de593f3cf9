"""The BLAS that NumPy has loaded: its threads, its kernels, and functions that NumPy does not call.

threadpoolctl finds it. It is imported at the first question only, to keep `import minidl` quick.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

GetThreads: TypeAlias = Callable[[], int]
SetThreads: TypeAlias = Callable[[int], Any]


class ThreadNumbers(NamedTuple):
    """What tells and sets the threads of each BLAS that is loaded; nothing of what cannot be set.

    Attributes:
        of_process: functions that tell and that set a number for all threads of the process.
        of_thread: the same of those that have a number for each thread that asks for products, of
            which the first may set it to one as well.
    """

    of_process: list[tuple[GetThreads, SetThreads]]
    of_thread: list[tuple[GetThreads, SetThreads]]


@cache
def thread_numbers() -> ThreadNumbers:
    """Those of the BLAS that NumPy has loaded, and of others, if there are any."""
    from threadpoolctl import ThreadpoolController

    numbers = ThreadNumbers([], [])
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        # threadpoolctl lets one thread alone set OpenBLAS, so we ask the libraries themselves.
        functions: Any = getattr(library, "dynlib", None)
        symbol = getattr(library, "_get_symbol", None)
        if hasattr(functions, "MKL_Set_Num_Threads_Local"):
            # It tells what it was set to before: 0 where the number of the process held.
            set_threads = functions.MKL_Set_Num_Threads_Local
            numbers.of_thread.append((partial(set_threads, 1), set_threads))
        elif library.internal_api == "openblas" and library.threading_layer == "openmp":
            openmp = functions.omp_get_max_threads, functions.omp_set_num_threads
            numbers.of_thread.append(openmp)
        elif library.internal_api == "openblas" and symbol:
            names = "openblas_get_num_threads", "openblas_set_num_threads"
            numbers.of_process.append((symbol(names[0]), symbol(names[1])))
        else:
            numbers.of_process.append((library.get_num_threads, library.set_num_threads))
    return numbers


@cache
def _openblas() -> Any:
    """What threadpoolctl knows of the OpenBLAS that NumPy has loaded; None for another BLAS."""
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return libraries[0] if libraries else None


def blas_function(name: str) -> Any:
    """A function of OpenBLAS, by the name it has in C; None if it or the library is not there."""
    symbol = getattr(_openblas(), "_get_symbol", None)
    return symbol(name) if symbol else None


@cache
def blas_architecture() -> str:
    """The kind of processor that OpenBLAS computes for, in its words; "" for another BLAS."""
    library = _openblas()
    return str(library.info()["architecture"]) if library else ""
