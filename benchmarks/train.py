"""Training speed against PyTorch on the CPU: python benchmarks/train.py.

Counted are samples a second of full training steps: forward, loss, backward, optimizer. The batches
are in memory already, and the same for all. `contest.py` tells who runs how. Needs PyTorch, which
minidl does not: pip install torch. Keras joins where it is installed.
"""

from __future__ import annotations

import contest
from models import batches
from options import add_models, add_seconds, options
from report import progress

BATCHES = 16  # as data comes: more than the innermost caches hold


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_seconds(parser, 1)
    add_models(parser)
    args = parser.parse_args()
    results = {}
    for name, model in args.models.items():
        progress(name)
        size = model.batch_size
        data = batches(model.data(BATCHES * size), size)
        results[name] = contest.compete("training", model, data, size, args.rounds, args.seconds)
    contest.report("train", "training", results, args.output)


if __name__ == "__main__":
    main()
