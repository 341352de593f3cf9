"""The house keeps its order: imports run downwards only, and cost little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up. A room may import only rooms on floors below its own, and itself.
FLOORS = [
    {"backend"},
    {"kernels"},
    {"anomaly", "distributed"},
    {"tensor"},
    {"ops"},
    {"losses", "optim", "init", "gradcheck", "machine"},
    {"layers"},
    {"data"},
    {"training"},
    {"interop"},
]
# tensor takes nothing from kernels, layers nothing from losses and optim; the floors allow it.
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

SOURCES = sorted((ROOT / "minidl").rglob("*.py"))
PROGRAMS = sorted([*(ROOT / "examples").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def imported_modules(path):
    """Every module that a file imports anywhere in it, with full names."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield module
            if module.count(".") == 0:  # `from minidl import backend` names a room
                yield from (f"{module}.{alias.name}" for alias in node.names)


def room(parts):
    return parts[1] if len(parts) > 1 else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    own = room(path.relative_to(ROOT).with_suffix("").parts)
    if own in ("__init__", "__main__"):
        return  # the roof: they take public names from every room
    assert own in FLOOR, f"{own} is no room of the house; give it a floor"
    for module in imported_modules(path):
        other = room(module.split("."))
        if module.split(".")[0] != "minidl" or other is None or other == own:
            continue
        assert other in FLOOR, f"{path.name} imports {module}, which is no room"
        assert FLOOR[other] < FLOOR[own], f"{own} ({path.name}) imports {module}: not below it"


def test_only_training_and_the_sampler_know_of_other_processes():
    knowing = {
        str(path.relative_to(ROOT / "minidl"))
        for path in SOURCES
        for module in imported_modules(path)
        if room(module.split(".")) == "distributed"
    }
    inside = {path for path in knowing if path.startswith(("distributed/", "training/"))}
    assert knowing - inside == {"__init__.py", "data/loader.py"}


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "minidl" / "ops" / "planted.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import minidl.layers\nfrom minidl import training\nfrom minidl.data import idx\n"
        "from ..losses import mse\nfrom .. import optim\n"
        "def f():\n    from minidl.gradcheck import g\n"
    )
    rooms = {room(module.split(".")) for module in imported_modules(path)}
    assert rooms >= {"layers", "training", "data", "losses", "optim", "gradcheck"}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_use_public_names_only(path):
    inside = [m for m in imported_modules(path) if m.startswith("minidl.")]
    assert not inside, f"{path.name} imports {inside}; import minidl and use minidl.NAME"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_backend_imports_cupy(path):
    names = {module.split(".")[0] for module in imported_modules(path)}
    assert path.name == "backend.py" or not names & {"cupy", "cupyx"}


def test_importing_minidl_loads_no_optional_library():
    code = "import minidl, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "numpy" in loaded
    drawing, files = {"PIL", "matplotlib", "rich"}, {"pooch", "requests", "safetensors"}
    others = {"cupy", "h5py", "keras", "mpi4py", "onnx", "scipy", "sklearn", "torch"}
    assert not loaded & (drawing | files | others)


def test_every_public_name_is_exported():
    import minidl

    for name in minidl.__all__:
        assert getattr(minidl, name) is not None


def test_declared_methods_have_the_arguments_of_the_operations_behind_them():
    import inspect

    import minidl

    tree = ast.parse((ROOT / "minidl" / "tensor.py").read_text())
    (bound,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "_Bound"
    )
    compared = 0
    for node in bound.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__"):
            declared = [
                *(a.arg for a in node.args.args[1:]),
                *(a.arg for a in node.args.kwonlyargs),
            ]
            if node.args.vararg:
                declared.append(node.args.vararg.arg)
            behind = list(inspect.signature(getattr(minidl.Tensor, node.name)).parameters)[1:]
            assert [n.replace("other", "b") for n in declared] == behind, node.name
            compared += 1
    assert compared > 20


def test_every_declared_method_of_tensor_is_bound():
    import minidl

    tree = ast.parse((ROOT / "minidl" / "tensor.py").read_text())
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    declared = {node.name for node in classes["_Bound"].body if isinstance(node, ast.FunctionDef)}
    assert len(declared) > 30
    for name in declared:
        assert getattr(minidl.Tensor, name) is not getattr(object, name, None), name
