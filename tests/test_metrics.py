"""Metrics against plain loops, every form of labels, and what is refused."""

import functools

import numpy as np
import pytest
from generated import DTYPES, SEEDS, generated
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import eighths

import minidl
from minidl import Tensor, accuracy, confusion_matrix, per_class_accuracy, top_k_accuracy

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@st.composite
def predictions(draw):
    """Outputs (N, C) with many ties, and a label for each; some classes may have no sample."""
    count, classes = draw(st.integers(1, 30)), draw(st.integers(1, 8))
    seed = draw(SEEDS)
    # few different numbers, so that most rows have equal ones
    outputs = np.floor(eighths((count, classes), seed) * draw(st.sampled_from([1, 8])))
    labels = np.random.default_rng(seed).integers(0, classes, count)
    return outputs.astype(draw(DTYPES)), labels


def ranking(row):
    """Classes from the largest output to the smallest, of equal ones the lower number first."""
    return sorted(range(len(row)), key=lambda c: (-row[c], c))


@generated
@given(predictions(), st.data())
def test_top_k_accuracy_counts_the_labels_among_the_first_k(case, data):
    outputs, labels = case
    k = data.draw(st.integers(1, outputs.shape[1]))
    hits = 0
    for row, label in zip(outputs, labels, strict=True):
        hits += label in ranking(row)[:k]
    measured = top_k_accuracy(outputs, labels, k)
    assert measured.dtype == outputs.dtype
    assert measured.item() == pytest.approx(hits / len(labels), rel=1e-6)


@generated
@given(predictions())
def test_the_first_of_one_is_accuracy_and_of_all_is_certain(case):
    outputs, labels = case
    assert top_k_accuracy(outputs, labels, 1).item() == accuracy(outputs, labels).item()
    assert top_k_accuracy(outputs, labels, outputs.shape[1]).item() == 1


@generated
@given(predictions())
def test_the_confusion_matrix_counts_true_by_predicted(case):
    outputs, labels = case
    classes = outputs.shape[1]
    expected = [[0] * classes for _ in range(classes)]
    for row, label in zip(outputs, labels, strict=True):
        expected[label][ranking(row)[0]] += 1
    matrix = confusion_matrix(outputs, labels)
    assert type(matrix) is np.ndarray
    assert matrix.dtype.kind == "i"
    assert matrix.tolist() == expected


@generated
@given(predictions())
def test_per_class_accuracy_is_the_accuracy_over_each_class(case):
    outputs, labels = case
    measured = per_class_accuracy(outputs, labels)
    assert type(measured) is np.ndarray
    assert measured.dtype == np.float64
    assert measured.shape == outputs.shape[1:]
    for label, share in enumerate(measured):
        own = [ranking(row)[0] == label for row in outputs[labels == label]]
        assert share == sum(own) / len(own) if own else np.isnan(share)


OUTPUTS = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
LABELS = np.array([1, 2, 2, 1])
MEASURES = [
    (functools.partial(top_k_accuracy, k=2), 0.75),
    (confusion_matrix, [[0, 0, 0], [1, 1, 0], [1, 0, 1]]),
    (per_class_accuracy, [np.nan, 0.5, 0.5]),
]


@pytest.mark.parametrize(("measure", "expected"), MEASURES)
def test_labels_come_in_every_form_that_accuracy_takes(measure, expected):
    forms = [LABELS.astype(dtype) for dtype in INTEGERS]
    forms += [LABELS.tolist(), LABELS[:, None], Tensor(LABELS), np.eye(3)[LABELS]]
    forms.append(np.eye(3)[LABELS] * 0.8 + 0.05)
    for labels in forms:
        for outputs in (OUTPUTS, Tensor(OUTPUTS), OUTPUTS.astype(np.float32), OUTPUTS.tolist()):
            result = measure(outputs, labels)
            result = result.numpy() if isinstance(result, Tensor) else result
            assert_array_equal(result, expected)


@pytest.mark.parametrize("measure", [measure for measure, _ in MEASURES])
@pytest.mark.parametrize(
    ("outputs", "labels", "error", "message"),
    [
        (OUTPUTS, LABELS[:3], ValueError, r"a label for each of 4 samples, .* shape \(3,\)"),
        (OUTPUTS, np.array([0, 1, 2, 3]), ValueError, "labels from 0 to 2 for 3 classes"),
        (OUTPUTS, np.array([0, 1, 2, -1]), ValueError, "labels from 0 to 2 for 3 classes"),
        (OUTPUTS, LABELS.astype(float), TypeError, "class numbers as integers, got float64"),
        (LABELS, LABELS, ValueError, r"expects outputs \(N, C\) .*, got shape \(4,\)"),
        (OUTPUTS[:0], LABELS[:0], ValueError, r"at least one sample, got shape \(0, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(measure, outputs, labels, error, message):
    with pytest.raises(error, match=message):
        measure(outputs, labels)


@pytest.mark.parametrize("measure", [top_k_accuracy, confusion_matrix, per_class_accuracy])
def test_errors_name_the_metric(measure):
    with pytest.raises(ValueError, match=rf"^{measure.__name__} expects outputs"):
        measure(LABELS, LABELS)


@pytest.mark.parametrize(("k", "message"), [(0, ">= 1, got 0"), (1.5, "1.5"), (4, "classes, 3, g")])
def test_a_k_that_is_no_number_of_classes_is_refused(k, message):
    with pytest.raises(ValueError, match=rf"k must be .*{message}"):
        top_k_accuracy(OUTPUTS, LABELS, k)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_outputs_that_are_not_numbers_are_no_hits(k):
    outputs = np.array([[np.nan] * 3, [np.nan, 1, 0], [0, np.nan, 1]])
    # nan is ahead of every number, as it is for argmax, but never found
    assert top_k_accuracy(outputs, [0, 1, 1], k).item() == pytest.approx((0, 1, 1)[k - 1] / 3)


def test_small_integers_do_not_overflow_with_many_classes():
    labels = np.arange(200, dtype=np.uint8)
    assert_array_equal(confusion_matrix(np.eye(200), labels), np.eye(200))
    assert top_k_accuracy(np.eye(200), labels, 1).item() == 1
    assert_array_equal(per_class_accuracy(np.eye(200), labels), np.ones(200))


def test_a_trainer_measures_the_top_k():
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 5), dtype=np.float32), rng.integers(0, 4, 100)
    minidl.seed(0)
    model = minidl.Sequential([minidl.Dense(4)], input_shape=(5,))
    metrics = {"accuracy": accuracy, "top_2": functools.partial(top_k_accuracy, k=2)}
    optimizer = minidl.SGD(model.parameters(), lr=0.1)
    trainer = minidl.Trainer(model, minidl.cross_entropy, optimizer, metrics=metrics)
    history = trainer.fit(x, y, 2, 16, validation_data=(x, y), verbose=0)
    expected = top_k_accuracy(trainer.predict(x), y, 2).item()
    assert history["val_top_2"][-1] == pytest.approx(expected, rel=1e-6)
    assert history["val_accuracy"][-1] < expected < 1
