"""The classifier for scikit-learn, and minidl where scikit-learn is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minidl

CHECKS = Path(__file__).parent / "scikit_learn" / "checks.py"


def test_the_classifier_passes_its_checks():
    # In a process of its own, because scikit-learn brings another BLAS along, which stays.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)]
    environment = {
        **os.environ,
        "PYTEST_ADDOPTS": "",
    }  # which may ask for the coverage of all tests
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_scikit_learn_its_classifier_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        ImportError, match=r'needs scikit-learn .*: pip install "scikit-learn>=1.6"'
    ):
        _ = minidl.NeuralNetClassifier
    names = {}
    exec("from minidl import *", names)
    assert names["Dense"] is minidl.Dense


def test_other_names_are_none():
    with pytest.raises(AttributeError, match="module 'minidl' has no attribute 'Classifier'"):
        _ = minidl.Classifier
