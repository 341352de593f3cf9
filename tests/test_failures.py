"""Memory that runs out and devices that die: one clear error, and nothing held any longer."""

import gc
import threading
import weakref

import numpy as np
import pytest
import stand_in

import minidl
from minidl import DeviceError, backend
from minidl.kernels import blas_threads, helpers, memory, scratch, threads

X = np.random.default_rng(0).random((120, 5), dtype=np.float32)
Y = np.arange(120) % 3


@pytest.fixture(autouse=True)
def no_collector():
    """What is let go of is freed at once, or not at all."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def more_than_there_is():
    return np.empty(1 << 57)


class Sees(minidl.Layer):
    """Remembers what passed through it, but weakly."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen += [weakref.ref(each) for each in (x, x._node) if each is not None]
        return x


class Fails(Sees):
    """Fails with batches of more than ten."""

    def __init__(self, fail=more_than_there_is, where="forward"):
        super().__init__()
        self.fail, self.where = fail, where

    def forward(self, x):
        super().forward(x)
        fails = len(x) > 10
        if fails and self.where == "forward":
            self.fail()

        def rule(g):
            if fails:
                self.fail()
            return g

        return super().forward(minidl.record(x.data + 0, (x, rule)))


def trainer_of(layer, device="cpu"):
    minidl.seed(0)
    layers = [Sees(), minidl.Dense(4), layer, minidl.BatchNorm(), minidl.Dense(3)]
    model = minidl.Sequential(layers, input_shape=(5,)).to(device)
    return minidl.Trainer(model, minidl.cross_entropy, minidl.Adam(model.parameters()))


def check_that_nothing_is_held(trainer):
    first, _, failing, *_ = trainer.model.layers
    assert len(first.seen) > 1
    assert len(failing.seen) > 1
    assert [each for each in (*first.seen, *failing.seen) if each() is not None] == []
    assert all(param.grad is None for param in trainer.model.parameters())


def check_that_all_is_in_order():
    assert blas_threads._process.inside == 0
    assert not blas_threads._here.holds
    assert not threads._inside.alone
    with helpers._making:  # or one may be on its way to sleep
        assert len(helpers.idle) == len(helpers._made)
    assert not scratch._shelf.busy


def check_that_a_smaller_training_is_right(trainer):
    """With smaller batches it trains as one does that has never failed."""
    twin = trainer_of(Fails(), trainer.model.parameters()[0].device)
    twin.model.load_state_dict(trainer.model.state_dict())
    states = []
    for each in (trainer, twin):
        minidl.seed(1)
        each.optimizer = minidl.Adam(each.model.parameters())
        each.fit(X, Y, 2, 10, verbose=0)
        states.append({name: a.tobytes() for name, a in each.model.state_dict().items()})
    assert states[0] == states[1]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_out_of_memory_in_training_says_what_to_do_and_holds_nothing(where):
    trainer = trainer_of(Fails(where=where))
    with pytest.raises(MemoryError) as caught:
        trainer.fit(X, Y, 3, 40, verbose=0)
    assert str(caught.value).startswith(
        "fit has run out of memory on device 'cpu'; use a smaller batch_size, or a smaller model ("
    )
    assert "Unable to allocate" in str(caught.value)
    assert isinstance(caught.value.__cause__, MemoryError)
    check_that_nothing_is_held(trainer)  # though the error is at hand
    check_that_all_is_in_order()
    check_that_a_smaller_training_is_right(trainer)


@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_out_of_memory_without_training(what):
    trainer = trainer_of(Fails())
    arguments = (X,) if what == "predict" else (X, Y)
    expected = getattr(trainer, what)(*arguments, batch_size=10)
    with pytest.raises(MemoryError, match=f"{what} has run out of memory on device 'cpu'; use a "):
        getattr(trainer, what)(*arguments, batch_size=20)
    check_that_nothing_is_held(trainer)
    check_that_all_is_in_order()
    np.testing.assert_equal(getattr(trainer, what)(*arguments, batch_size=10), expected)


def test_out_of_memory_in_validation_is_told_once():
    trainer = trainer_of(Fails())
    with pytest.raises(MemoryError) as caught:
        trainer.fit(X, Y, 1, 10, validation_data=(X, Y), verbose=0)  # which takes larger batches
    assert str(caught.value).count("run out of memory") == 1
    check_that_nothing_is_held(trainer)
    check_that_all_is_in_order()


def test_large_results_let_go_of_are_not_kept_either():
    minidl.seed(0)
    model = minidl.Sequential([minidl.Dense(300), Fails(), minidl.Dense(3)], input_shape=(5,))
    trainer = minidl.Trainer(model, minidl.cross_entropy, minidl.SGD(model.parameters()))
    with pytest.raises(MemoryError):
        trainer.fit(X, Y, batch_size=120, verbose=0)  # 120 x 300 are more than memory.LEAST
    assert not any(memory._idle.values())


def test_other_errors_are_left_as_they_are():
    def fail():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        trainer_of(Fails(fail)).fit(X, Y, verbose=0)
    assert caught.value.__cause__ is None


def test_what_helpers_fail_with_goes_with_the_error():
    minidl.set_num_threads(2)
    seen = []
    meet = threading.Barrier(2, timeout=60)

    def work(piece):
        large = Sees()
        seen.append(weakref.ref(large))
        meet.wait()
        raise MemoryError(piece)  # in both threads

    for _ in range(5):
        with pytest.raises(MemoryError):
            threads.share(work, [0, 1])
    assert len(seen) == 10
    assert [each for each in seen if each() is not None] == []
    check_that_all_is_in_order()


def test_idle_memory_is_given_back_before_a_result_finds_none(monkeypatch):
    memory.empty(backend.CPU, (memory.LEAST,), np.float32)  # and nobody holds it
    idle = []
    empty = np.empty

    def tight(*arguments, **options):
        idle.append(any(memory._idle.values()))
        if idle[-1]:
            raise MemoryError
        return empty(*arguments, **options)

    monkeypatch.setattr(np, "empty", tight)
    result = memory.empty(backend.CPU, (memory.LEAST + 8,), np.float32)
    assert result.size == memory.LEAST + 8
    assert idle == [True, False]


# On a device


def raising(make):
    def fail():
        raise make()

    return fail


OUT_OF_MEMORY = {
    "pool": lambda: stand_in.cuda.memory.OutOfMemoryError("1 of 2 bytes"),
    "runtime": lambda: stand_in.cuda.runtime.CUDARuntimeError(2),
    "driver": lambda: stand_in.cuda.driver.CUDADriverError(2),
}
DEAD = {
    "runtime": lambda: stand_in.cuda.runtime.CUDARuntimeError(700),
    "driver": lambda: stand_in.cuda.driver.CUDADriverError(719),
    "cublas": lambda: stand_in.cuda.cublas.CUBLASError(2),
}


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_a_device_out_of_memory_goes_on_with_smaller_batches(kind, where, stand_in_device):
    trainer = trainer_of(Fails(raising(OUT_OF_MEMORY[kind]), where), stand_in_device)
    with pytest.raises(MemoryError, match="on device 'gpu'; use a smaller batch_size") as caught:
        trainer.fit(X, Y, 3, 40, verbose=0)
    assert type(caught.value) is MemoryError
    check_that_nothing_is_held(trainer)
    check_that_all_is_in_order()
    check_that_a_smaller_training_is_right(trainer)


@pytest.mark.parametrize("kind", DEAD)
def test_a_dead_device_leaves_the_cpu_usable(kind, stand_in_device):
    before = trainer_of(Fails()).fit(X, Y, 5, 10, verbose=0).history
    trainer = trainer_of(Fails(raising(DEAD[kind])), stand_in_device)
    with pytest.raises(DeviceError, match="device 'gpu' has failed, and what it held") as caught:
        trainer.fit(X, Y, 3, 40, verbose=0)
    assert str(caught.value.__cause__) in str(caught.value)
    check_that_nothing_is_held(trainer)
    check_that_all_is_in_order()
    assert trainer_of(Fails()).fit(X, Y, 5, 10, verbose=0).history == before
