"""What `fuzz.py` makes inputs of: whole files for each parser, and mutations that know a format."""

from fuzzing.archives import CIFAR10_BINARY, CIFAR10_PYTHON, PICKLE
from fuzzing.models import CHECKPOINT, MODEL, WEIGHTS
from fuzzing.mutations import Parser, blind
from fuzzing.pictures import PICTURE
from fuzzing.tables import CSV, IDX

PARSERS = {
    parser.name: parser
    for parser in (
        IDX,
        CSV,
        CIFAR10_BINARY,
        CIFAR10_PYTHON,
        PICKLE,
        MODEL,
        WEIGHTS,
        CHECKPOINT,
        PICTURE,
    )
}

__all__ = ["PARSERS", "Parser", "blind"]
