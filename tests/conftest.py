"""What holds for every test."""

import hypothesis
import pytest

import minidl

# For tests/mutation: that an input fails is enough, the smallest one that does is not looked for.
hypothesis.settings.register_profile(
    "mutation", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)


@pytest.fixture(autouse=True)
def number_of_threads():
    """Puts back the number of threads that a test sets."""
    before = minidl.get_num_threads()
    yield
    minidl.set_num_threads(before)
