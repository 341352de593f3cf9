"""Data sets in batches: their order, transforms, work done ahead; and validation splits."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import minidl
from minidl import DataLoader, Generator, Tensor, train_validation_split
from minidl.data.loader import Pass
from minidl.kernels.threads import Ahead


def numbered(count):
    """Samples that carry their number, and labels that do too."""
    return np.arange(count, dtype=np.float32)[:, None], np.arange(count)


def noise(images, generator):
    """A transform that shows what its generator draws."""
    return images + generator.host.random(images.shape)


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_a_pass_holds_every_sample_once_with_its_label(count, batch_size, shuffle, drop_last):
    if drop_last and batch_size > count:
        with pytest.raises(ValueError, match=f"drop_last leaves no batch of {batch_size} among"):
            DataLoader(*numbered(count), batch_size, drop_last=True)
        return
    loader = DataLoader(*numbered(count), batch_size, shuffle=shuffle, drop_last=drop_last)
    batches = list(loader)
    assert len(loader) == len(batches)
    assert {len(x) for x, _ in batches[:-1]} <= {batch_size}
    for x, y in batches:
        assert isinstance(x, Tensor)
        assert_array_equal(x.data[:, 0], y.data)
    seen = [int(n) for _, y in batches for n in y.data]
    whole = count - count % batch_size if drop_last else count
    assert len(seen) == len(set(seen)) == whole
    if not shuffle:
        assert seen == list(range(whole))


def order(loader):
    return [int(n) for _, y in loader for n in y.data]


def test_each_pass_has_an_order_of_its_own_that_the_seed_decides():
    def orders(seed):
        loader = DataLoader(*numbered(50), 8, shuffle=True, generator=Generator(seed))
        return order(loader), order(loader)

    first, second = orders(0)
    assert first != second
    assert orders(0) == (first, second)
    assert orders(1)[0] != first
    minidl.seed(3)
    by_default = order(DataLoader(*numbered(50), shuffle=True))
    minidl.seed(3)
    assert order(DataLoader(*numbered(50), shuffle=True)) == by_default


def test_inputs_alone_come_as_tensors():
    parts = list(DataLoader(np.arange(5), batch_size=2))
    assert [part.data.tolist() for part in parts] == [[0, 1], [2, 3], [4]]


def test_columns_of_labels_stay_columns():
    x, y = numbered(5)
    (_, labels), *_ = DataLoader(Tensor(x), y[:, None], batch_size=3)
    assert labels.shape == (3, 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_transforms_draw_the_same_whoever_makes_a_batch_and_when(count):
    minidl.set_num_threads(count)
    x, y = numbered(20)
    loader = DataLoader(x, y, 4, transform=noise, generator=Generator(0))
    in_turn = [batch.data for batch, _ in loader]
    again = [batch.data for batch, _ in loader]
    assert not np.array_equal(in_turn[0], again[0])  # and so does each pass
    same = DataLoader(x, y, 4, transform=noise, generator=Generator(0)).one_pass()
    for number in (3, 0, 4, 1, 2):
        assert_array_equal(same.inputs(number).data, in_turn[number])
    assert (x[:, 0] == np.arange(20)).all()


def test_each_batch_draws_numbers_of_its_own():
    loader = DataLoader(np.zeros((20, 1)), batch_size=4, transform=noise, generator=Generator(0))
    drawn = [batch.data.tobytes() for _ in range(2) for batch in loader]
    assert len(set(drawn)) == 10


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_transform_that_writes_to_its_batch_leaves_the_data_alone(shuffle):
    def writes(images, _):
        images += 1
        return images

    x, y = numbered(9)
    for _ in range(2):
        batches = list(DataLoader(x, y, 4, shuffle=shuffle, transform=writes))
        assert all((batch.data[:, 0] == labels.data + 1).all() for batch, labels in batches)
    assert_array_equal(x[:, 0], y)


def test_batches_that_nothing_is_done_to_are_not_copied():
    x, y = numbered(9)
    for inputs, labels in DataLoader(x, y, 4).one_pass(like=x):
        assert np.shares_memory(inputs.data, x)
        assert np.shares_memory(labels.data, y)


def test_a_pass_that_was_left_begins_again_with_its_first_batch():
    one_pass = DataLoader(*numbered(10), 4, transform=noise, generator=Generator(0)).one_pass()
    expected = [one_pass.inputs(number).data for number in range(3)]
    for _ in one_pass:
        one_pass.prepare()
        break
    for batch, right in zip(one_pass, expected, strict=True):
        assert_array_equal(batch[0].data, right)


def test_a_pass_that_was_left_lets_the_data_go():
    x, y = numbered(20)
    gone = weakref.ref(x)
    gc.disable()
    try:
        loader = DataLoader(x, y, 4, transform=lambda images, _: images)
        for _ in loader:
            break
        del loader, x, _
        for _ in range(1000):  # a helper may still be at the second batch
            if gone() is None:
                break
            time.sleep(0.01)
        assert gone() is None
    finally:
        gc.enable()


def test_a_forked_child_makes_the_batches_itself():
    code = """if True:
        import os, sys, numpy as np, minidl
        minidl.set_num_threads(2)
        x = np.arange(12)
        seen = []
        for batch in minidl.DataLoader(x, batch_size=4, transform=lambda images, _: images + 1):
            if len(seen) == 0 and os.fork():
                _, status = os.wait()
                sys.exit(os.waitstatus_to_exitcode(status))
            seen += batch.data.tolist()
        sys.exit(0 if seen == list(range(1, 13)) else 1)
    """
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0


def test_the_next_batch_is_made_ready_by_another_thread():
    minidl.set_num_threads(2)
    makers = []

    def watched(images, _):
        makers.append(threading.current_thread())
        return images

    loader = DataLoader(*numbered(6), 2, transform=watched)
    one_pass = loader.one_pass()
    for _ in one_pass:
        one_pass.prepare()
        one_pass.prepare()  # which is done already
    me = threading.current_thread()
    assert makers[0] is me
    assert len(makers) == 3
    assert all(thread is not me for thread in makers[1:])


def test_an_error_of_a_transform_reaches_the_loop():
    def broken(*_):
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        list(DataLoader(*numbered(4), 2, transform=broken))


@pytest.mark.usefixtures("device")
def test_batches_come_to_the_device_before_they_are_transformed():
    like = Tensor(np.zeros(1, np.float32)).to("gpu").data
    seen = []

    def watched(images, _):
        seen.append((type(images), images.dtype))
        return images

    x, y = np.arange(12, dtype=np.uint8).reshape(6, 2), np.arange(6)
    for source in (x, Tensor(x).to("gpu")):
        loader = DataLoader(source, y, 4, shuffle=True, transform=watched, generator=Generator(0))
        for inputs, labels in loader.one_pass(like):
            assert inputs.device == labels.device == "gpu"
            assert inputs.dtype == np.float32
            assert_array_equal(inputs.numpy()[:, 0], 2 * labels.numpy())
    assert seen == [(type(like), np.uint8)] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((0, 2)), np.zeros(0)), r"at least one sample of inputs, got shape \(0, 2\)"),
        ((np.zeros(3), np.zeros(2)), "got 3 inputs and 2 labels"),
        ((np.zeros(3), [0, 0, 0]), "labels as an array or a tensor, got list"),
        (([1.0], np.zeros(1)), "inputs as an array or a tensor, got list"),
        ((np.zeros(3), np.zeros(3), 0), "batch_size must be an integer >= 1, got 0"),
        ((np.zeros(3), np.zeros(3), 2.0), "batch_size must be an integer >= 1, got 2.0"),
    ],
)
def test_what_is_no_data_set_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DataLoader(*arguments)


# A training on batches of a loader


def trained(*data, **options):
    minidl.seed(0)
    model = minidl.Sequential([minidl.Dense(3)], input_shape=(2,))
    optimizer = minidl.SGD(model.parameters(), lr=0.1)
    trainer = minidl.Trainer(model, minidl.cross_entropy, optimizer)
    history = trainer.fit(*data, epochs=3, verbose=0, **options)
    return trainer, model.layers[0].weight.data.tolist(), history.history


def points():
    return np.arange(70, dtype=np.float32).reshape(35, 2) / 8, np.arange(35) % 3


def makers_of_batches(monkeypatch, samples, like=None, as_loop=False, **options):
    """The batches that were made ready together, and whether by another thread."""
    minidl.set_num_threads(2)
    made = []
    run = Pass._run

    def watched(self, first):
        batches = run(self, first)
        ahead = threading.current_thread() is not threading.main_thread()
        made.append((range(first, first + len(batches)), ahead))
        return batches

    monkeypatch.setattr(Pass, "_run", watched)
    loader = DataLoader(samples, batch_size=2, **options)
    one_pass = loader.one_pass(like)
    for _ in loader if as_loop else one_pass:
        if not as_loop:
            one_pass.prepare()
    return [batches for batches, _ in made], [ahead for _, ahead in made]


@pytest.mark.parametrize("as_loop", [False, True])
def test_what_is_gathered_or_transformed_is_made_ready_ahead(monkeypatch, as_loop):
    monkeypatch.setattr(minidl.data.loader, "GATHERED", 2 * 80)
    small, large = np.zeros((10, 10), np.float32), np.zeros((10, 11), np.float32)
    one_by_one = [range(n, n + 1) for n in range(5)]

    def makers(samples, **options):
        return makers_of_batches(monkeypatch, samples, as_loop=as_loop, **options)

    ahead = [False, True, True, True, True]
    assert makers(small) == (one_by_one, [False] * 5)
    assert makers(small, transform=noise) == (one_by_one, ahead)
    assert makers(small, shuffle=True, transform=noise) == (one_by_one, ahead)
    assert makers(large, shuffle=True) == (one_by_one, ahead)
    together = [range(2), range(2, 4), range(4, 5)]
    assert makers(small, shuffle=True) == (together, ahead[:3])
    y = np.zeros((10, 1), np.float32)  # labels count, too
    assert makers(small, shuffle=True, y=y) == (one_by_one, ahead)
    monkeypatch.setattr(minidl.data.loader, "MOST_AT_ONCE", 3)
    assert makers(small[:, :1], shuffle=True) == ([range(3), range(3, 5)], ahead[:2])


@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    together=st.integers(0, 400),
    ranks=st.integers(1, 3),
    left=st.integers(0, 3),
    labelled=st.booleans(),
)
def test_batches_gathered_together_are_those_gathered_alone(
    count, batch_size, together, ranks, left, labelled
):
    x, y = numbered(count)
    x = x.astype(np.uint8)
    like = np.zeros(1, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minidl.data.loader, "GATHERED", together)
        for rank in range(ranks):
            loader = DataLoader(x, y if labelled else None, batch_size, shuffle=True)
            world = SimpleNamespace(rank=rank, size=ranks, broadcast=id)  # says nothing
            one_pass = loader.one_pass(like, world=world)
            later = {**one_pass.state_dict(), "next": min(left, len(one_pass))}
            for a_pass in (one_pass, loader.one_pass(like, later, world)):
                first = a_pass.done
                for number, batch in enumerate(a_pass, first):
                    assert len(batch) == 1 + labelled
                    assert a_pass.done == number + 1
                    assert batch[0].dtype == np.float32
                    assert_array_equal(batch[0].data, one_pass.inputs(number).data)
                    if labelled:
                        assert_array_equal(batch[1].data, one_pass.labels(number).data)
                    a_pass.prepare()
                assert a_pass.done == len(one_pass)


@pytest.mark.usefixtures("device")
def test_batches_for_a_device_are_made_in_turn(monkeypatch):
    like = Tensor(np.zeros(1, np.float32)).to("gpu").data
    samples = np.zeros((6, 9), np.float32)
    for options in ({"transform": lambda images, _: images}, {"shuffle": True}):
        made = makers_of_batches(monkeypatch, samples, like, **options)
        assert made == ([range(n, n + 1) for n in range(3)], [False] * 3)


@pytest.mark.usefixtures("device")
def test_labels_on_a_device_are_fetched_for_inputs_that_are_not():
    x, y = numbered(6)
    like = np.zeros(1, np.float32)
    loader = DataLoader(x, Tensor(y).to("gpu"), 2, shuffle=True)
    for inputs, labels in loader.one_pass(like):
        assert labels.device == "cpu"
        assert_array_equal(inputs.data[:, 0], labels.data)


def test_fit_has_the_next_batch_made_ready_and_draws_from_the_generator_it_is_given(monkeypatch):
    asked = []
    prepare = Pass.prepare
    monkeypatch.setattr(Pass, "prepare", lambda self: asked.append(1) or prepare(self))
    _, weights, _ = trained(*points(), generator=Generator(1))
    assert len(asked) == 3 * 2  # 35 samples make two batches of 32
    assert trained(*points(), generator=Generator(1))[1] == weights
    assert trained(*points(), generator=Generator(2))[1] != weights


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("transform", [None, noise])
def test_batches_made_ready_ahead_train_as_those_made_in_turn(monkeypatch, count, transform):
    results = []
    for together, threads in ((0, 1), (0, count), (300, count)):
        monkeypatch.setattr(minidl.data.loader, "GATHERED", together)
        minidl.set_num_threads(threads)
        results.append(trained(*points(), batch_size=8, transform=transform)[1:])
    assert results[0] == results[1] == results[2]


def test_fit_with_a_loader_is_fit_with_its_arguments():
    _, weights, history = trained(*points(), batch_size=8, transform=noise)
    loader = DataLoader(*points(), 8, shuffle=True, transform=noise)
    assert trained(loader)[1:] == (weights, history)
    with pytest.raises(ValueError, match="takes no y, batch_size, shuffle, transform or"):
        trained(loader, batch_size=8)


def test_training_batches_alone_are_transformed_unless_asked():
    x, y = points()

    def nothing(images, _):
        return 0 * images

    trainer, _, history = trained(x, y, transform=nothing, validation_data=(x, y))
    blind = DataLoader(x, y, transform=nothing)
    assert np.ptp(history["loss"]) < 0.02  # nothing can be learned from zeros
    assert trainer.evaluate(x, y)["loss"] == history["val_loss"][-1]
    assert trainer.evaluate(blind)["loss"] != history["val_loss"][-1]
    assert len(np.unique(trainer.predict(blind), axis=0)) == 1
    assert len(np.unique(trainer.predict(x), axis=0)) == 35
    _, _, history = trained(x, y, validation_data=blind)
    assert history["val_loss"][-1] != history["loss"][-1]


def test_evaluation_with_a_random_transform_does_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(minidl.training.outputs, "WORTH_SHARING", -1.0)
    x, y = points()
    trainer, *_ = trained(x, y)
    results = []
    for count in (1, 2, 8):
        minidl.set_num_threads(count)
        loader = DataLoader(x, y, 2, transform=noise, generator=Generator(0))
        results.append(trainer.evaluate(loader))
    assert results[0] == results[1] == results[2]


def test_inputs_alone_can_be_predicted_but_not_learned_from():
    x, y = points()
    trainer, *_ = trained(x, y)
    loader = DataLoader(x)
    assert_array_equal(trainer.predict(loader), trainer.predict(x))
    with pytest.raises(ValueError, match="fit expects inputs and labels, got inputs alone"):
        trainer.fit(loader)
    with pytest.raises(ValueError, match="evaluate expects inputs and labels, got inputs alone"):
        trainer.evaluate(x)
    for data in (loader, (x, None)):
        with pytest.raises(ValueError, match="validation_data expects inputs and labels"):
            trainer.fit(x, y, validation_data=data)


def test_a_loader_is_not_told_how_to_besides():
    x, y = points()
    trainer, *_ = trained(x, y)
    with pytest.raises(ValueError, match="evaluate with a DataLoader takes no labels and no batch"):
        trainer.evaluate(DataLoader(x, y), y)
    with pytest.raises(ValueError, match="predict with a DataLoader takes no labels and no batch"):
        trainer.predict(DataLoader(x), batch_size=4)
    for options in ({"shuffle": True}, {"drop_last": True}):
        with pytest.raises(ValueError, match="predict returns an output for every sample"):
            trainer.predict(DataLoader(x, batch_size=4, **options))


@pytest.mark.parametrize("transform", [minidl.HorizontalFlip, [minidl.HorizontalFlip()], 3])
def test_what_is_no_transform_is_refused(transform):
    with pytest.raises(TypeError, match="transform must be a transform such as HorizontalFlip"):
        DataLoader(*numbered(4), transform=transform)


def test_what_is_computed_ahead_arrives_or_raises_with_and_without_a_helper():
    for count in (1, 2):
        minidl.set_num_threads(count)
        assert [Ahead(lambda i=i: i).result() for i in range(5)] == list(range(5))
        failing = Ahead(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            failing.result()


# Samples set aside


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    fraction=st.floats(0.05, 0.95),
    form=st.sampled_from(["numbers", "column", "one-hot"]),
    stratify=st.booleans(),
)
def test_a_split_takes_each_sample_once_and_of_each_class_its_share(
    labels, fraction, form, stratify
):
    classes = np.array(labels)
    y = {"numbers": classes, "column": classes[:, None], "one-hot": np.eye(5)[classes]}[form]
    x, numbers = numbered(len(classes))
    wanted = round(fraction * len(classes))
    generator = Generator(0)
    if not 0 < wanted < len(classes):
        with pytest.raises(ValueError, match="fraction must leave samples on both sides"):
            train_validation_split(x, y, fraction, stratify=stratify, generator=generator)
        return
    (x_train, y_train), (x_validation, y_validation) = train_validation_split(
        x, y, fraction, stratify=stratify, generator=generator
    )
    train, validation = x_train[:, 0].astype(int), x_validation[:, 0].astype(int)
    assert sorted([*train, *validation]) == list(numbers)
    assert len(validation) == wanted
    assert_array_equal(y_train, y[train])
    assert_array_equal(y_validation, y[validation])
    assert (np.diff(train) > 0).all()
    if stratify:
        for one in np.unique(classes):
            share = wanted / len(classes) * (classes == one).sum()
            assert abs((classes[validation] == one).sum() - share) < 1


@pytest.mark.parametrize("classes", [1, 4, 100])
@pytest.mark.parametrize("stratify", [False, True])
def test_the_seed_decides_what_is_set_aside(classes, stratify):
    x, y = numbered(100)

    def set_aside(seed):
        options = {"stratify": stratify, "generator": Generator(seed)}
        return train_validation_split(x, y % classes, **options)[1][0][:, 0].tolist()

    assert set_aside(0) == set_aside(0) != set_aside(1)
    assert len(set_aside(0)) == 10
    seen = {number for seed in range(99) for number in set_aside(seed)}
    assert len(seen) > 95  # each has its chance


def test_classes_have_their_shares_only_if_they_are_to():
    x, y = numbered(100)
    x, y = x, y % 2

    def of_class_one(seed, **options):
        _, (_, labels) = train_validation_split(x, y, 0.2, generator=Generator(seed), **options)
        return int(labels.sum())

    assert {of_class_one(seed) for seed in range(20)} == {10}
    assert len({of_class_one(seed, stratify=False) for seed in range(20)}) > 1


def test_labels_that_are_not_known_make_a_class_and_other_shapes_are_refused():
    x, y = np.arange(40), np.where(np.arange(40) < 10, np.nan, 1.0)
    (_, rest), (_, labels) = train_validation_split(x, y, 0.9)
    assert len(labels) == 36
    assert np.isnan(labels).sum() == 9
    assert len(rest) == 4
    for shape in ((40, 0), (40, 2, 2)):
        with pytest.raises(ValueError, match="to stratify, got shape"):
            train_validation_split(x, np.zeros(shape))
        train_validation_split(x, np.zeros(shape), stratify=False)


@pytest.mark.usefixtures("device")
def test_a_split_takes_tensors_and_stays_on_their_device():
    x, y = numbered(20)
    expected = train_validation_split(x, y, generator=Generator(0))
    there = Tensor(x).to("gpu"), Tensor(y).to("gpu")
    for data in ((Tensor(x), Tensor(y)), there):
        split = train_validation_split(*data, generator=Generator(0))
        for part, right in zip(sum(split, ()), sum(expected, ()), strict=True):
            assert type(part) is type(data[0].data)
            assert_array_equal(Tensor(part).numpy(), right)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_a_split_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must leave samples on both sides"):
        train_validation_split(*numbered(10), fraction)
    with pytest.raises(ValueError, match="got 10 inputs, 9 labels"):
        train_validation_split(numbered(10)[0], numbered(9)[1])


@pytest.mark.parametrize("generator", [3, np.random.default_rng(0)])
def test_a_generator_of_another_kind_is_refused(generator):
    with pytest.raises(TypeError, match=r"generator must be a minidl\.Generator\(seed\), got"):
        minidl.DataLoader(np.zeros(3), generator=generator)


def test_a_transform_that_loses_samples_is_refused():
    loader = minidl.DataLoader(np.zeros((5, 2)), batch_size=4, transform=lambda x, _: x[1:].copy())
    with pytest.raises(ValueError, match="a transform made 3 samples of 4"):
        next(iter(loader))
