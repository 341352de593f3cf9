"""What holds for every test."""

import pytest

import minidl


@pytest.fixture(autouse=True)
def number_of_threads():
    """Puts back the number of threads that a test sets."""
    before = minidl.get_num_threads()
    yield
    minidl.set_num_threads(before)
