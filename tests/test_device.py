"""The device seam: two libraries in one process, on a stand-in where there is no GPU."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import stand_in

import minidl
from minidl import DeviceError, Tensor, backend

pytestmark = pytest.mark.usefixtures("device")
stand_in_alone = pytest.mark.usefixtures("stand_in_device")


def on_gpu(*shape, requires_grad=True):
    values = np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)
    x = Tensor(values).to("gpu")
    x.requires_grad = requires_grad
    return x


def model():
    minidl.seed(0)
    return minidl.Sequential(
        [
            minidl.Conv2D(4, 3, padding="same", activation="relu"),
            minidl.BatchNorm(),
            minidl.MaxPool(2),
            minidl.Conv2D(4, 2, strides=2, padding="same", activation="tanh"),
            minidl.AvgPool(2, padding="same"),
            minidl.Flatten(),
            minidl.Dense(8, activation="sigmoid"),
            minidl.Dense(3),
        ],
        input_shape=(8, 8, 1),
    )


def pictures():
    rng = np.random.default_rng(1)
    return rng.random((40, 8, 8, 1), dtype=np.float32), np.arange(40) % 3


OPTIMIZERS = [
    lambda p: minidl.SGD(p, momentum=0.9, nesterov=True, weight_decay=0.01),
    minidl.Adam,
    minidl.AdamW,
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_training_on_the_device_gives_what_the_cpu_gives(make):
    x, y = pictures()
    results = []
    for device in ("cpu", "gpu"):
        trained = model().to(device)
        trainer = minidl.Trainer(
            trained, minidl.cross_entropy, make(trained.parameters()), clip_norm=1.0
        )
        history = trainer.fit(x, y, 2, 16, validation_data=(x, y), shuffle=False, verbose=0)
        assert all(p.device == device and p.dtype == np.float32 for p in trained.parameters())
        outputs = trainer.predict(x)
        assert type(outputs) is np.ndarray
        results.append((history.history, outputs))
    (on_cpu, expected), (on_device, outputs) = results
    for name in on_cpu:
        assert on_device[name] == pytest.approx(on_cpu[name], rel=1e-5)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("pool", [2, (3, 2)])
@pytest.mark.parametrize("channels", [1, 9])
def test_convolution_and_pooling_in_one_go_on_the_device_are_what_they_are_on_the_cpu(
    activation, pool, channels
):
    minidl.seed(0)
    model = minidl.Sequential(
        [
            minidl.Conv2D(4, 2, padding="same", activation=activation),
            minidl.MaxPool(pool),
            minidl.Conv2D(3, 2, strides=2, activation=activation),
            minidl.MaxPool((1, 2)),
        ],
        input_shape=(9, 8, channels),
    )
    x = on_gpu(3, 9, 8, channels).to("cpu").detach()
    results = []
    for device in ("cpu", "gpu"):
        images = Tensor(x.data.copy()).to(device)
        images.requires_grad = True
        out = model.to(device)(images)
        (out * out).sum().backward()
        assert out.device == device
        gradients = [images.grad, *(p.grad for p in model.parameters())]
        if device == "gpu":
            assert all(backend.of(gradient).device == "gpu" for gradient in gradients)
            gradients = [backend.on_host(gradient) for gradient in gradients]
        results.append([out.numpy(), *gradients])
    for on_cpu, on_device in zip(*results, strict=True):
        np.testing.assert_allclose(on_device, on_cpu, rtol=1e-5, atol=1e-5)


def test_auto_takes_the_gpu_and_arrays_of_the_user_are_known():
    assert minidl.find_device() == "gpu"
    assert on_gpu(3).device == "gpu"
    assert Tensor(backend.named("gpu").asarray(np.ones(1))).device == "gpu"


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x**2,
        lambda x: 2**x,
        lambda x: x**x,
        lambda x: x / (1 + x),
        lambda x: minidl.sigmoid(x) * minidl.tanh(x) + minidl.sqrt(x),
        lambda x: minidl.maximum(x, 1.0) - minidl.minimum(x, x * x),
        lambda x: x.clip(0.7, 1.2),
        lambda x: minidl.leaky_relu(x - 1),
        lambda x: minidl.where(x > 1, x, 0.0),
        lambda x: x[[0, 0, 1]],
        lambda x: x[x > 1],
        lambda x: x.max(axis=0) + x.min(axis=1, keepdims=True),
        lambda x: x.var(axis=0, ddof=1),
        lambda x: x.logsumexp(axis=1) + x.log_softmax().mean(axis=1),
        lambda x: minidl.concatenate([x, [[1.0, 2.0, 3.0]]]),
        lambda x: x.transpose() @ x + [1.0, 2.0, 3.0],
        lambda x: x.pad(1).sum(),
        lambda x: minidl.softmax(x).log().mean(),
    ],
)
def test_operations_on_the_device_have_right_gradients(compute):
    assert minidl.gradcheck(compute, on_gpu(2, 3))
    x = on_gpu(2, 3)
    out = compute(x)
    assert out.device == "gpu"
    out.sum().backward()
    assert backend.of(x.grad).device == "gpu"


def test_a_model_with_dropout_is_checked_on_the_device():
    layers = [minidl.Dense(3), minidl.Dropout(0.5)]
    model = minidl.Sequential(layers, input_shape=(4,)).to("gpu")
    assert minidl.gradcheck(model, on_gpu(5, 4), loss=lambda out: (out * out).sum())


def test_gradients_flow_back_across_devices():
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    (x.to("gpu") * 2).to("cpu").sum().backward()
    assert type(x.grad) is np.ndarray
    assert x.grad.tolist() == [2, 2, 2]


HOST = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "meet",
    [
        lambda x: x + HOST,
        lambda x: HOST * x,
        lambda x: x @ np.ones((3, 2), np.float32),
        lambda x: minidl.where(HOST > 0, x, 0.0),
        lambda x: minidl.concatenate([x, HOST]),
        lambda x: minidl.mse(x, HOST),
        lambda x: minidl.cross_entropy(x, np.array([0, 1])),
        lambda x: minidl.accuracy(x, np.array([0, 1])),
        lambda x: minidl.top_k_accuracy(x, np.array([0, 1]), k=2),
        lambda x: minidl.confusion_matrix(x, np.array([0, 1])),
        lambda x: (x * 2).backward(HOST),
        lambda x: minidl.conv2d(
            x.reshape(1, 2, 3, 1), Tensor(np.ones((1, 1, 1, 2), np.float32)).to("gpu"), HOST[0, :2]
        ),
        lambda x: minidl.Sequential([minidl.Dense(2)], input_shape=(3,))(x),
    ],
)
def test_two_devices_in_one_operation_are_refused_by_name(meet):
    with pytest.raises(DeviceError, match=r"arrays on two devices met: '(c|g)pu' .*'(c|g)pu'"):
        meet(on_gpu(2, 3))


def test_nothing_leaves_the_device_unasked():
    with pytest.raises(TypeError, match=r"only by \.numpy\(\)"):
        np.asarray(on_gpu(3))
    assert type(on_gpu(3).numpy()) is np.ndarray


def test_metrics_on_the_device_are_those_on_the_cpu():
    rng = np.random.default_rng(0)
    outputs, labels = rng.integers(0, 4, (30, 5)).astype(np.float32), rng.integers(0, 4, 30)
    for truth in (labels, labels[:, None].astype(np.uint8), np.eye(5)[labels]):
        there = Tensor(outputs).to("gpu"), Tensor(truth).to("gpu")
        share = minidl.top_k_accuracy(*there, k=2)
        assert share.device == "gpu"
        assert share.item() == minidl.top_k_accuracy(outputs, labels, k=2).item()
        for metric in (minidl.confusion_matrix, minidl.per_class_accuracy):
            measured = metric(*there)
            assert type(measured) is np.ndarray
            np.testing.assert_array_equal(measured, metric(outputs, labels))


def test_pictures_are_drawn_of_what_is_on_the_device():
    images, labels = pictures()
    names = ["a", "b", "c"]
    moved = model().to("gpu")
    there = Tensor(images[:2]).to("gpu"), Tensor(labels[:2]).to("gpu")
    shares = minidl.softmax(moved(there[0])).detach()
    figures = [
        (
            minidl.plot_images(there[0], there[1], names),
            minidl.plot_predictions(there[0], shares, there[1], names),
            minidl.plot_probabilities(there[0], shares, names, there[1]),
            minidl.plot_filters(moved),
            minidl.plot_feature_maps(moved, there[0][0]),
        )
    ]
    shares, stayed = shares.numpy(), moved.to("cpu")
    figures.append(
        (
            minidl.plot_images(images[:2], labels[:2], names),
            minidl.plot_predictions(images[:2], shares, labels[:2], names),
            minidl.plot_probabilities(images[:2], shares, names, labels[:2]),
            minidl.plot_filters(stayed),
            minidl.plot_feature_maps(stayed, images[0]),
        )
    )
    for on_device, on_cpu in zip(*figures, strict=True):
        assert [a.get_title() for a in on_device.axes] == [a.get_title() for a in on_cpu.axes]
        drawn = [[a.images[0].get_array() for a in f.axes if a.images] for f in (on_device, on_cpu)]
        assert len(drawn[0]) >= 2
        for there, here in zip(*drawn, strict=True):
            np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


def test_a_model_moves_with_its_state_and_its_optimizer_follows():
    x, y = pictures()
    moving, staying = model(), model()
    results = []
    for trained, devices in ((staying, ["cpu", "cpu"]), (moving, ["cpu", "gpu"])):
        trainer = minidl.Trainer(trained, minidl.cross_entropy, minidl.Adam(trained.parameters()))
        for device in devices:
            trained.to(device)
            trainer.fit(x, y, shuffle=False, verbose=0)
        results.append(trainer.predict(x))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-5)


def test_a_state_of_device_arrays_is_loaded():
    source, target = model(), model().to("gpu")
    there = backend.named("gpu")
    state = {name: there.asarray(array + 1) for name, array in source.state_dict().items()}
    target.load_state_dict(state)
    for name, array in target.state_dict().items():
        assert np.array_equal(array, source.state_dict()[name] + 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_model_with_dropout_can_be_copied(copied):
    layers = [minidl.Dropout(0.5), minidl.Dropout(0.5, generator=minidl.Generator(3))]
    original = minidl.Sequential([*layers, minidl.Dense(3)], input_shape=(4,))
    twin = copied(original)
    x = np.ones((2, 4), np.float32)
    outputs = []
    for m in (original, twin):
        minidl.seed(5)  # the first dropout of the copy still draws from the default generator
        outputs.append(m(x).numpy())
    assert np.array_equal(*outputs)


def test_a_replay_lets_other_threads_draw():
    dropout = minidl.Dropout(0.5)

    def in_a_thread(x):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(dropout, x).result(timeout=30)

    assert minidl.gradcheck(in_a_thread, np.ones(4))


def test_seeding_inside_a_replay_ends_with_it():
    generator, twin = minidl.Generator(1), minidl.Generator(1)
    generator.host.random()
    twin.host.random()
    with generator.replaying():
        generator.seed(2)
        generator.host.random()
    assert generator.host.random() == twin.host.random()


def test_a_trainer_can_be_copied():
    trained = model()
    trainer = minidl.Trainer(trained, minidl.cross_entropy, minidl.Adam(trained.parameters()))
    twin = copy.deepcopy(trainer)
    x, y = pictures()
    trainer.fit(x, y, shuffle=False, verbose=0)
    twin.fit(x, y, shuffle=False, verbose=0)
    assert np.array_equal(trainer.predict(x), twin.predict(x))


# What crosses between the host and the device


def fitted(samples, **options):
    """Train on host data for an epoch; what was transferred meanwhile."""
    rng = np.random.default_rng(1)
    x, y = rng.random((samples, 6), dtype=np.float32), np.arange(samples) % 3
    minidl.seed(0)
    trained = minidl.Sequential(
        [minidl.Dense(5, "relu"), minidl.Dropout(0.2), minidl.BatchNorm(), minidl.Dense(3)],
        input_shape=(6,),
    ).to("gpu")
    trainer = minidl.Trainer(
        trained, minidl.cross_entropy, minidl.Adam(trained.parameters()), clip_norm=1.0
    )
    stand_in.transfers.clear()
    trainer.fit(x, y, batch_size=4, verbose=0, **options)
    return dict(stand_in.transfers)


@stand_in_alone
@pytest.mark.parametrize("options", [{}, {"shuffle": False}])
def test_a_step_makes_no_transfer_where_the_data_fit_on_the_device(options):
    few, many = fitted(20, **options), fitted(200, **options)
    assert few == many
    assert many["to_device"] <= 5  # inputs, labels, their order; two memories of Adam's


@stand_in_alone
def test_a_step_brings_its_batch_and_no_more_where_the_data_do_not_fit(monkeypatch):
    monkeypatch.setattr(stand_in.cuda.runtime, "free", 100)
    few, many = fitted(20), fitted(200)
    assert many["to_host"] == few["to_host"]
    assert many["to_device"] - few["to_device"] == 2 * (50 - 5)


@stand_in_alone
def test_losses_and_metrics_are_fetched_some_batches_at_a_time():
    few, many = fitted(20)["to_host"], fitted(4 * 64 * 10)["to_host"]
    assert many - few == 2 * (10 - 1)  # for 64 batches the losses, and the accuracy


@stand_in_alone
def test_what_is_shuffled_on_the_device_is_what_is_shuffled_on_the_cpu(monkeypatch):
    x, y = pictures()
    orders = []
    for free in (2**30, 100):
        monkeypatch.setattr(stand_in.cuda.runtime, "free", free)
        loader = minidl.DataLoader(x, y, 7, shuffle=True, generator=minidl.Generator(3))
        loader = loader.on_device_of(on_gpu(1).data)
        assert isinstance(loader.x, stand_in.ndarray) == (free > 100)
        one_pass = loader.one_pass(like=on_gpu(1).data)
        orders.append([(a.numpy(), b.numpy()) for a, b in one_pass])
        state = one_pass.state_dict()
        assert type(state["order"]) is np.ndarray
    for (x1, y1), (x2, y2) in zip(*orders, strict=True):
        np.testing.assert_array_equal(x1, x2)
        np.testing.assert_array_equal(y1, y2)


@pytest.mark.parametrize(
    ("loss", "labels", "message"),
    [
        (minidl.cross_entropy, np.array([0, 1, 2, 3]), "labels from 0 to 2 for 3 classes, got"),
        (minidl.cross_entropy, np.array([0, -1, 2, 1]), "labels from 0 to 2 for 3 classes, got"),
        (
            minidl.cross_entropy,
            np.full((4, 3), 1.5),
            "expected probabilities from 0 to 1 as labels",
        ),
        (minidl.binary_cross_entropy, np.full((4, 3), -1.0), "expected probabilities from 0 to 1"),
    ],
)
def test_labels_that_are_none_make_the_loss_nan_and_fit_says_why(loss, labels, message):
    x = on_gpu(4, 3)
    assert np.isnan(loss(x, Tensor(labels).to("gpu")).item())
    each = loss(x, Tensor(labels).to("gpu"), reduction="none").numpy()
    legal = ((labels >= 0) & (labels <= (2 if labels.ndim == 1 else 1))).reshape(4, -1).all(1)
    np.testing.assert_array_equal(np.isfinite(each.reshape(4, -1)).all(1), legal)
    trained = minidl.Sequential([minidl.Dense(3)], input_shape=(2,)).to("gpu")
    trainer = minidl.Trainer(trained, loss, minidl.SGD(trained.parameters()), metrics={})
    inputs = np.ones((4, 2), np.float32)
    with pytest.raises(minidl.NonFiniteError, match=f"the loss of step 1 was nan.*{message}"):
        trainer.fit(inputs, labels, verbose=0)
    with pytest.raises(ValueError, match=message):
        trainer.evaluate(inputs, labels)


@stand_in_alone
def test_a_call_of_numpy_on_what_is_on_the_device_is_caught(monkeypatch):
    monkeypatch.setattr("minidl.ops.elementwise.array_module", lambda _: np)
    with pytest.raises(TypeError, match=r"numpy\.exp on an array of the stand-in"):
        minidl.exp(on_gpu(3))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_training_on_the_device_goes_on_from_a_checkpoint_to_the_last_bit(tmp_path, make):
    path = tmp_path / "training.safetensors"
    x, y = pictures()

    def train(epochs, **options):
        trained = model().to("gpu")
        trainer = minidl.Trainer(trained, minidl.cross_entropy, make(trained.parameters()))
        trainer.fit(x, y, epochs, 16, verbose=0, **options)
        return trainer

    whole = train(3)
    train(1, checkpoint=path)
    parts = train(3, resume=path)
    assert parts.history.history == whole.history.history
    assert all(parameter.device == "gpu" for parameter in parts.model.parameters())
    for name, array in parts.model.state_dict().items():
        np.testing.assert_array_equal(array, whole.model.state_dict()[name])
