"""The classifier for scikit-learn, checked by scikit-learn and used as its users do.

`tests/test_separately.py` runs this file.
"""

import functools
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import minidl
from minidl import NeuralNetClassifier
from minidl.backend import default_generator


# Their data sets are so small that the defaults would make only a few steps.
@parametrize_with_checks([NeuralNetClassifier(epochs=30, batch_size=16, lr=0.01)])
def test_scikit_learn_is_content(estimator, check):
    check(estimator)


def blobs(classes=3):
    x, y = make_blobs(60, n_features=4, centers=classes, cluster_std=0.3, random_state=0)
    return StandardScaler().fit_transform(x), y


def quick(**arguments):
    """A classifier that learns blobs in a moment."""
    return NeuralNetClassifier(**{"epochs": 5, "lr": 0.05, "random_state": 0, **arguments})


def cnn(classes, filters=4):
    return [
        minidl.Conv2D(filters, 3, activation="relu"),
        minidl.MaxPool(2),
        minidl.Flatten(),
        minidl.Dropout(0.2),
        minidl.Dense(classes),
    ]


def digits(count=600):
    """Images (N, 8, 8, 1) of handwritten digits, from 0 to 1."""
    x, y = load_digits(return_X_y=True)
    return (x[:count] / 16).reshape(-1, 8, 8, 1), y[:count]


# What it learns


def test_the_defaults_learn_to_read_digits():
    x, y = digits(1500)
    x = x.reshape(len(x), -1)
    seen, unseen, of_seen, of_unseen = train_test_split(x, y, random_state=0)
    classifier = NeuralNetClassifier(random_state=0).fit(seen, of_seen)
    assert classifier.n_features_in_ == 64
    assert len(classifier.history_) == 10
    assert classifier.score(unseen, of_unseen) > 0.9
    assert classifier.score(unseen, (of_unseen + 1) % 10) < 0.1


@pytest.mark.parametrize("names", [["b", "a", "c"], [7, -2, 30], [2.0, 1.0, 5.0]])
def test_labels_of_any_kind_come_back(names):
    x, y = blobs()
    y = np.array(names)[y]
    classifier = quick().fit(x, y)
    assert classifier.classes_.tolist() == sorted(names)
    predicted = classifier.predict(x)
    assert predicted.dtype == y.dtype
    np.testing.assert_array_equal(predicted, y)


def test_probabilities_are_those_of_the_model():
    x, y = blobs()
    classifier = quick().fit(x, y)
    found = classifier.predict_proba(x)
    expected = minidl.softmax(classifier.model_(x.astype(np.float32))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    of_softmax = quick(model=lambda n: [minidl.Dense(n, "softmax")]).fit(x, y)
    np.testing.assert_allclose(of_softmax.predict_proba(x).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        of_softmax.predict_proba(x), of_softmax.model_(x.astype(np.float32)).numpy(), rtol=1e-6
    )


@pytest.mark.parametrize("model", [cnn, lambda classes: minidl.Sequential(cnn(classes)), None])
def test_images_are_classified(model):
    x, y = digits()
    classifier = NeuralNetClassifier(model, lr=0.01, random_state=0).fit(x, y)
    assert classifier.model_.input_shape == (8, 8, 1)
    assert classifier.score(x, y) > 0.9
    with pytest.raises(
        ValueError, match=r"shape \(8, 7, 1\), but NeuralNetClassifier is expecting"
    ):
        classifier.predict(x[:, :, :7])


def test_bytes_are_taken_as_they_are():
    x, y = digits(100)
    x = (255 * x).astype(np.uint8)
    classifiers = [quick(epochs=1).fit(images, y) for images in (x, x.astype(np.float64))]
    outputs = [c.predict_proba(x) for c in classifiers]
    assert np.array_equal(*outputs)


def test_the_model_has_the_layers_asked_for():
    x, y = blobs()
    units = [p.shape for p in quick(hidden=(5, 6)).fit(x, y).model_.parameters()]
    assert units == [(4, 5), (5,), (5, 6), (6,), (6, 3), (3,)]
    assert len(quick(hidden=()).fit(x, y).model_.parameters()) == 2


def test_training_is_as_asked_for():
    x, y = blobs()
    heard = []

    def listen(trainer, epoch, measures):
        heard.append((epoch, trainer.optimizer.step_count, type(trainer.optimizer)))
        assert measures["accuracy"] <= 1

    sgd = functools.partial(minidl.SGD, momentum=0.9)
    quick(epochs=2, batch_size=20, optimizer=sgd, callbacks=[listen]).fit(x, y)
    assert heard == [(1, 3, minidl.SGD), (2, 6, minidl.SGD)]
    stopping = minidl.EarlyStopping("loss", min_delta=100.0)
    assert len(quick(callbacks=[stopping]).fit(x, y).history_) == 2
    rates = [quick(lr=lr, hidden=()).fit(x, y) for lr in (0.0, minidl.StepDecay(0.1, 5), 0.1)]
    assert len({c.model_.parameters()[0].data.tobytes() for c in rates}) == 3


def test_nothing_is_shown_unless_asked_for(capsys):
    x, y = blobs()
    quick().fit(x, y)
    assert capsys.readouterr().out == ""
    quick(verbose=2).fit(x, y)
    assert "Epoch 5/5" in capsys.readouterr().out


# What it draws


def both_states():
    return default_generator.state_dict(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_random_state_decides_on_everything_and_leaves_the_generators_alone():
    x, y = digits(100)
    before = both_states()
    outputs = [
        quick(model=cnn, epochs=2, random_state=state).fit(x, y).predict_proba(x)
        for state in (1, 1, np.random.RandomState(1), 2)
    ]
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[3])
    with pytest.raises(ValueError, match="batch_size"):
        quick(batch_size=0).fit(x, y)
    assert both_states() == before


def test_a_random_state_object_goes_on_from_fit_to_fit():
    x, y = blobs()
    classifier = quick(random_state=np.random.RandomState(0))
    outputs = [classifier.fit(x, y).predict_proba(x) for _ in range(2)]
    assert not np.array_equal(*outputs)


def test_without_a_random_state_the_seed_of_minidl_decides():
    x, y = blobs()
    outputs = []
    for seed in (3, 3, None):
        if seed is not None:
            minidl.seed(seed)
        outputs.append(quick(random_state=None).fit(x, y).predict_proba(x))
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_each_fit_starts_anew_even_with_layers_that_are_always_the_same():
    x, y = blobs()
    layers = [minidl.Dense(5, "relu"), minidl.Dropout(0.1), minidl.Dense(3)]
    classifier = quick(model=lambda _: layers)
    outputs = [classifier.fit(x, y).predict_proba(x) for _ in range(2)]
    assert np.array_equal(*outputs)
    assert not layers[0].built


# With what scikit-learn has


def test_a_search_over_layers_and_learning_rates():
    x, y = blobs()
    grid = {"hidden": [(), (8,)], "lr": [0.0, 0.05], "model": [None]}
    search = GridSearchCV(quick(), grid, cv=3).fit(x, y)
    assert search.best_params_["lr"] == 0.05
    assert search.best_score_ > 0.9
    assert search.predict(x[:2]).shape == (2,)


def test_a_search_over_models_in_several_processes():
    x, y = digits(100)
    grid = {"model": [cnn, functools.partial(cnn, filters=8)]}
    searches = [
        GridSearchCV(quick(epochs=1), grid, cv=2, n_jobs=n_jobs).fit(x, y) for n_jobs in (1, 2)
    ]
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_array_equal(one, two)


def test_it_stands_at_the_end_of_a_pipeline():
    x, y = load_digits(return_X_y=True)
    x, y = x[:200], y[:200]
    classifier = NeuralNetClassifier(cnn, epochs=2, lr=0.01, random_state=0)
    images = FunctionTransformer(lambda table: table.reshape(-1, 8, 8, 1))
    scores = cross_val_score(make_pipeline(StandardScaler(), images, classifier), x, y, cv=2)
    expected = []
    for seen, unseen in StratifiedKFold(2).split(x, y):
        scaler = StandardScaler().fit(x[seen])
        classifier.fit(scaler.transform(x[seen]).reshape(-1, 8, 8, 1), y[seen])
        predicted = classifier.predict(scaler.transform(x[unseen]).reshape(-1, 8, 8, 1))
        expected.append(np.mean(predicted == y[unseen]))
    assert scores.tolist() == expected
    assert len(set(expected)) == 2


def test_a_clone_has_the_parameters_and_nothing_learned():
    x, y = blobs()
    classifier = quick(
        model=cnn, callbacks=[minidl.EarlyStopping("loss")], lr=minidl.StepDecay(1, 2)
    )
    twin = clone(classifier)
    assert twin.get_params().keys() == classifier.get_params().keys()
    assert twin.model is cnn
    with pytest.raises(NotFittedError):
        clone(quick().fit(x, y)).predict(x)


def test_a_copy_predicts_the_same_and_takes_no_gradients_along():
    x, y = digits(100)
    classifier = quick(model=cnn, epochs=1).fit(x, y)
    twin = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(twin.predict_proba(x), classifier.predict_proba(x))
    assert not any(module.training for module in twin.model_.modules())
    assert all(parameter.grad is None for parameter in twin.model_.parameters())


def test_tensors_are_taken():
    x, y = blobs()
    classifier = quick().fit(minidl.Tensor(x), minidl.Tensor(y))
    assert np.array_equal(classifier.predict(minidl.Tensor(x)), quick().fit(x, y).predict(x))


def test_it_trains_on_the_device(device):
    x, y = digits(100)
    on_cpu, there = (quick(hidden=(8,), device=name).fit(x, y) for name in ("cpu", device))
    assert {parameter.device for parameter in there.model_.parameters()} == {"gpu"}
    probabilities = there.predict_proba(x)
    assert type(probabilities) is np.ndarray
    np.testing.assert_allclose(probabilities, on_cpu.predict_proba(x), rtol=1e-3, atol=1e-5)
    with pytest.raises(TypeError, match=r"only by \.numpy\(\)"):
        there.predict(minidl.Tensor(x).to(device))


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": [minidl.Dense(3)]}, "a function of the number of classes .*, got list"),
        ({"model": minidl.Sequential([minidl.Dense(3)])}, "a function .*, got Sequential"),
        ({"model": lambda _: [minidl.Dense(10)]}, r"give \(N, 3\) for 3 classes, .*\(None, 10\)"),
        ({"model": lambda _: [minidl.Dense]}, "Sequential expects layers, got type"),
        ({"hidden": 128}, r"hidden must be a tuple of numbers, such as \(128,\), got 128"),
        ({"hidden": (0,)}, "units must be an integer >= 1, got 0"),
        ({"optimizer": "adam"}, "optimizer must be a class such as minidl.Adam, .* got 'adam'"),
        ({"lr": -1.0}, "lr"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"epochs": 1.5}, "epochs must be an integer >= 1, got 1.5"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"device": "tpu"}, "device must be 'cpu', 'gpu' or 'auto', got 'tpu'"),
        ({"random_state": -1}, "Seed must be between"),
        ({"callbacks": [minidl.EarlyStopping()]}, "val_loss"),
    ],
)
def test_a_wrong_argument_is_named_by_fit(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        quick(**arguments).fit(*blobs())


def test_what_failed_leaves_what_was_fitted():
    x, y = blobs()
    classifier = quick().fit(x, y)
    before = classifier.predict_proba(x)
    with pytest.raises(ValueError, match="lr"):
        classifier.set_params(lr=-1.0).fit(x, np.array(["a", "b"])[y % 2])
    assert np.array_equal(classifier.predict_proba(x), before)
    assert classifier.classes_.tolist() == [0, 1, 2]


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match="2 classes or more, y has 1 class: 'boot'"):
        quick().fit(np.ones((3, 2)), ["boot"] * 3)
