"""What scikit-learn's classifiers make of the same pictures, as one tutorial compared them.

They need `pip install -e ".[classical]"`. Settings are scikit-learn's defaults; SVC takes minutes
for 60,000 pictures. The row's seconds are those of all three.
"""

from __future__ import annotations

import time
from typing import Any

from systems import Data, Entry, Figure

NAME = "classical"
ENTRY = Entry(
    recipe="scikit-learn's SVC, DecisionTreeClassifier, RandomForestClassifier; default settings",
    figures=[
        Figure("SVC", published=0.816),
        Figure("DecisionTree", published=1.0),
        Figure("RandomForest", published=0.991),
    ],
    remark="published: on a private sample, not comparable",
)


def run(data: Data, seed: int) -> dict[str, Any]:
    """Fit each classifier on the training pictures; the row of their test accuracies."""
    try:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.svm import SVC
        from sklearn.tree import DecisionTreeClassifier
    except ImportError as error:
        raise ImportError(
            'scikit-learn is not installed here: pip install -e ".[classical]"'
        ) from error
    classifiers = {
        "SVC": SVC(random_state=seed),
        "DecisionTree": DecisionTreeClassifier(random_state=seed),
        "RandomForest": RandomForestClassifier(random_state=seed),
    }
    x_train, x_test = (x.reshape(len(x), -1) for x in (data.x_train, data.x_test))
    started = time.perf_counter()
    accuracies = {}
    for label, classifier in classifiers.items():
        print(f"fitting {label} ...", flush=True)
        classifier.fit(x_train, data.y_train)
        accuracies[label] = float(classifier.score(x_test, data.y_test))
        print(f"{label}: test accuracy {accuracies[label]:.4f}", flush=True)
    return {
        "system": NAME,
        "seed": seed,
        "device": "cpu",
        "epochs": 1,
        "seconds_an_epoch": time.perf_counter() - started,
        "parameters": 0,
        "figures": accuracies,
    }
