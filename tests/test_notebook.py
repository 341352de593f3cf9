"""The notebook: clean, short, of public names alone, and it runs as it is."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minidl

PATH = Path(__file__).parent.parent / "examples" / "fashion_cnn.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def source(cell):
    """The Python of a cell: without the lines that are for Jupyter."""
    return "".join(line for line in cell["source"] if not line.startswith("%"))


def test_there_are_ten_short_cells_of_code_each_after_some_words():
    assert len(CODE) == 10
    assert all(len(cell["source"]) <= 20 for cell in CODE)
    kinds = [cell["cell_type"] for cell in NOTEBOOK["cells"]]
    assert kinds == [*["markdown", "code"] * 10, "markdown"]


def test_nothing_of_a_run_or_a_machine_is_stored():
    assert PATH.stat().st_size < 20_000
    for cell in CODE:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert all(cell["metadata"] == {} for cell in NOTEBOOK["cells"])
    assert NOTEBOOK["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert not re.search(r"(?<![\w.:/}])[/~]\w|\b[A-Za-z]:\\|file:", PATH.read_text("utf-8"))


def test_only_public_names_are_used():
    used = set()
    for cell in CODE:
        for node in ast.walk(ast.parse(source(cell))):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
                assert imported <= {"tempfile", "numpy", "minidl"}
            assert not isinstance(node, ast.ImportFrom)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "minidl":
                used.add(node.attr)
    assert {"gradcheck", "Trainer", "plot_filters", "save", "load"} <= used <= set(minidl.__all__)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each cell of code leaves, when all are run in an empty folder."""
    # In a process of its own, because what runs notebooks has an event loop and sockets.
    code = f"""if True:
        import json, nbclient, nbformat
        notebook = nbformat.read({str(PATH)!r}, as_version=4)
        nbclient.NotebookClient(notebook, timeout=300).execute()
        print(json.dumps([c.outputs for c in notebook.cells if c.cell_type == "code"]))
    """
    folder, settings = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("settings")
    # The kernel imports the same minidl, and leaves nothing in the user's folders.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PATH.parent.parent), os.environ.get("PYTHONPATH", "")]),
        "IPYTHONDIR": str(settings),
        "JUPYTER_RUNTIME_DIR": str(settings),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return json.loads(done.stdout.splitlines()[-1])


def printed(outputs):
    return "".join(
        out["text"] for cell in outputs for out in cell if out["output_type"] == "stream"
    )


def test_it_runs_and_complains_of_nothing(outputs):
    for cell in outputs:
        assert cell
        assert all(out["output_type"] != "error" for out in cell)
        assert all(out.get("name") != "stderr" for out in cell)
    assert "the same outputs: True" in printed(outputs)


def test_it_draws_its_pictures(outputs):
    pictures = [sum("image/png" in out.get("data", ()) for out in cell) for cell in outputs]
    assert pictures == [1, 1, 0, 0, 0, 1, 1, 1, 2, 0]


def test_what_it_trains_has_learned_something(outputs):
    # One run gave 0.991, 0.841 and 0.879.
    text = printed(outputs)
    neuron, of_no = re.search(r"right for ([\d.]+)% .* saying no: ([\d.]+)%", text).groups()
    assert float(neuron) > float(of_no) + 5
    dense = re.search(r"not seen: (0\.\d+)", text)
    assert float(dense[1]) > 0.80
    cnn = re.search(r"test accuracy (0\.\d+)", text)
    assert float(cnn[1]) > 0.86
