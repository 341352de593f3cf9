"""Tests of libraries that change the process they are in, each in a process of its own.

scikit-learn brings another BLAS along, which stays, and Keras imports scikit-learn where it is
installed: the tests that count the threads of BLAS would find it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minidl

ROOT = Path(__file__).parent.parent
NEEDED = {"keras": ["keras", "h5py", "torch"], "scikit_learn": ["sklearn"]}


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_tested_in_a_process_of_its_own(name):
    for library in NEEDED[name]:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    checks = ROOT / "tests" / "separately" / f"check_{name}.py"
    environment = dict(os.environ)
    if "--cov" in environment.get("PYTEST_ADDOPTS", ""):
        # What is covered there joins what is covered here; how much it is, is asked of both.
        environment["PYTEST_ADDOPTS"] = "--cov --cov-report= --cov-fail-under=0"
        environment["COVERAGE_FILE"] = str(ROOT / f".coverage.{name}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )
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
