"""The functions of minidl.ops, found by reading the package, so that no table can forget one."""

import importlib
import inspect
import pkgutil

import minidl.ops
from minidl.ops import elementwise

COMPARISONS = {
    elementwise.less,
    elementwise.less_equal,
    elementwise.greater,
    elementwise.greater_equal,
    elementwise.equal,
    elementwise.not_equal,
}


def public_functions(module):
    """The functions that a module defines under names without an underscore."""
    return {
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def differentiable():
    """All that have a gradient."""
    modules = [
        importlib.import_module(f"minidl.ops.{found.name}")
        for found in pkgutil.iter_modules(minidl.ops.__path__)
        if found.name != "operands"  # which brings arguments into form
    ]
    return set().union(*(public_functions(module) for module in modules)) - COMPARISONS
