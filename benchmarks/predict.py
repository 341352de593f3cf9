"""Speed of prediction against PyTorch on the CPU: python benchmarks/predict.py.

Counted are samples a second: the outputs for 10,000 images, batch 256, in evaluation mode and
without a graph, once or as often as they fit into a turn. minidl is asked by `Trainer.predict`;
PyTorch, which has no such method, by a loop in its inference mode. The images are in memory
already, and the same for all. `contest.py` tells who runs how. Needs PyTorch, which minidl does
not: pip install torch. Keras joins where it is installed.
"""

from __future__ import annotations

import contest
from models import batches
from options import add_models, add_seconds, options
from report import progress

IMAGES, BATCH = 10_000, 256


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_seconds(parser, 0.5)
    add_models(parser)
    args = parser.parse_args()
    results = {}
    for name, model in args.models.items():
        progress(name)
        data = batches(model.data(IMAGES), BATCH)
        results[name] = contest.compete(
            "prediction", model, data, IMAGES, args.rounds, args.seconds
        )
    contest.report("predict", "prediction", results, args.output)


if __name__ == "__main__":
    main()
