"""The graph of operations behind a tensor: as text for Graphviz, and as a picture.

Graphviz (https://graphviz.org) reads graphs in the language DOT and places their nodes. Only the
picture needs it.
"""

from __future__ import annotations

import inspect
import io
import shutil
import subprocess
from typing import TYPE_CHECKING

from minidl.anomaly import operation_name
from minidl.layers import Module
from minidl.tensor import Node, Tensor
from minidl.training.plots.figure import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAF, OPERATION, RESULT = "#dbe7f6", "#ffffff", "#f9dcdc"

INSTALL_GRAPHVIZ = (
    "apt-get install graphviz (Debian, Ubuntu), brew install graphviz (macOS), "
    "or https://graphviz.org/download"
)


def computation_graph(output: Tensor, model: Module | None = None) -> str:
    """The graph that `backward` will walk, as text in Graphviz's language DOT.

    In it are operations, by the names of their functions, and the parameters and other tensors that
    get a gradient, by their names and shapes. What has no gradient, such as images and labels, is
    not. Arrows run the way the computation did, with the shapes of what operations passed on. What
    is computed in one go is one operation: a convolution with the pooling after it is "conv2d".

    Args:
        output: what operations made, such as a loss. Its `backward` lets the graph go.
        model: whose parameters get their dotted names.

    Returns:
        One `digraph`, which Graphviz's programs and many web pages draw.

    Raises:
        ValueError: if there is no graph behind the tensor, or not any more.
    """
    if not output.requires_grad:
        raise ValueError(
            "computation_graph expects a tensor that gradients flow to; this one was computed from "
            "nothing with requires_grad=True, or inside no_grad()"
        )
    names = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    root = output._node or output
    numbers = {id(root): 0}
    stack = [root]
    lines = [
        'node [fontname="Helvetica", fontsize=11, height=0.3, shape=box, style=filled]',
        'edge [fontname="Helvetica", fontsize=9, arrowsize=0.7]',
        _node("result", ["loss" if output.size == 1 else "output"], RESULT),
        _edge(0, "result", output.shape),
    ]
    while stack:
        here = stack.pop()
        number = numbers[id(here)]
        if isinstance(here, Tensor):
            name = names.get(id(here), type(here).__name__)
            lines.append(_node(number, [name, str(here.shape)], LEAF))
            continue
        if here.edges is None:
            raise ValueError(
                "computation_graph: backward() has let this graph go; draw it before, or compute "
                "the loss again"
            )
        lines.append(_node(number, [_operation(here)], OPERATION))
        for source, shape, _ in filter(None, here.edges):
            if id(source) not in numbers:
                numbers[id(source)] = len(numbers)
                stack.append(source)
            lines.append(
                _edge(numbers[id(source)], number, () if isinstance(source, Tensor) else shape)
            )
    return "digraph {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"


def plot_computation_graph(output: Tensor, model: Module | None = None) -> Figure:
    """Draw what `computation_graph` describes, with Graphviz's program `dot`.

    Args:
        output: as for `computation_graph`.
        model: whose parameters get their dotted names.

    Raises:
        ValueError: as `computation_graph`.
        OSError: if Graphviz is not installed, or cannot draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    text = computation_graph(output, model)
    program = shutil.which("dot")
    if program is None:
        raise FileNotFoundError(
            "plot_computation_graph needs the program dot of Graphviz, which is not on the path: "
            f"{INSTALL_GRAPHVIZ}; computation_graph() gives the graph as text without it"
        )
    done = subprocess.run(  # noqa: S603 - a program found on the path, no shell
        [program, "-Tpng", f"-Gdpi={DPI}"], input=text.encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise OSError(f"{program} could not draw the graph: {done.stderr.decode().strip()}")
    picture = imread(io.BytesIO(done.stdout))
    height, width = picture.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(picture)
    return figure


def _operation(node: Node) -> str:
    """The function that recorded a node."""
    # `record` and `record_jointly` wrap the rules in functions of their own, which remember them.
    remembered = inspect.getclosurevars(node.rule).nonlocals  # type: ignore[arg-type]
    rule = remembered["rule"] if "rule" in remembered else remembered["rules"][0]
    return operation_name(rule)


def _node(number: int | str, lines: list[str], color: str) -> str:
    """A statement of DOT: a node with lines of text in it."""
    return f'{number} [label={_quoted(lines)}, fillcolor="{color}"]'


def _edge(source: int | str, target: int | str, shape: tuple[int, ...]) -> str:
    """A statement of DOT: an arrow, with the shape beside it if there is one to tell."""
    return f"{source} -> {target}" + (f" [label={_quoted([f' {shape}'])}]" if shape else "")


def _quoted(lines: list[str]) -> str:
    """Lines of any text as one string of DOT."""
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "\\n".join(escaped) + '"'
