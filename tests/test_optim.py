"""Optimizers and schedules, step by step against PyTorch, and what they refuse."""

import copy
import math
import pickle
import weakref
from functools import partial

import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal
from pytorch import cases
from reference import numbers

import minidl
from minidl import (
    SGD,
    Adam,
    AdamW,
    CosineDecay,
    Dense,
    OneCycle,
    Optimizer,
    Parameter,
    Schedule,
    Sequential,
    StepDecay,
    Tensor,
    WarmUp,
    backend,
    clip_grad_norm,
)

# Both take the same steps in the same order, but PyTorch's compiler may round a product and a sum
# together. Parameters stay below 8, so that a rounding is up to 4 * eps; twenty of them, as often
# up as down, make about sqrt(20) of that: 16 * eps.
TOLERANCE = {"float32": 16 * 2.0**-23, "float64": 16 * 2.0**-52}

# PyTorch multiplies up some of its schedules from step to step: a few roundings for each of 24.
SCHEDULE_TOLERANCE = 1e-13

SCHEDULES = {
    "step": StepDecay(0.5, 5, 0.3),
    "cosine": CosineDecay(0.5, cases.SCHEDULE_STEPS, final=0.01),
    "cosine_to_zero": CosineDecay(0.5, cases.SCHEDULE_STEPS),
    "warm_up": WarmUp(0.5, 8, start=0.25),
    "warm_up_and_cosine": WarmUp(CosineDecay(0.5, cases.SCHEDULE_STEPS - 6), 6, start=0.1),
    "one_cycle": OneCycle(0.5, cases.SCHEDULE_STEPS),
    "one_cycle_late": OneCycle(
        0.5, cases.SCHEDULE_STEPS, rise=0.7, div_factor=10, final_div_factor=100
    ),
    "one_cycle_odd": OneCycle(0.5, cases.SCHEDULE_STEPS, rise=0.33),
}


def parameter(values, gradient=None, dtype=np.float32):
    param = Parameter(np.array(values, dtype))
    param.grad = None if gradient is None else np.array(gradient, dtype)
    return param


def parameters_at(place, dtype):
    """The parameters of `cases` on a device."""
    there = backend.named(place)
    return [Parameter(there.asarray(array)) for array in cases.parameters(dtype)]


def run(optimizer, dtype, max_norm=None):
    """The watched elements after each recorded step, and the norms before each."""
    rows, norms = [], []
    for step in range(cases.STEPS):
        gradients = cases.gradients(step, dtype)
        for param, gradient in zip(optimizer.params, gradients, strict=True):
            param.grad = None if gradient is None else backend.of(param.data).asarray(gradient)
        if max_norm is not None:
            norms.append(clip_grad_norm(optimizer.params, max_norm))
        optimizer.step()
        if step in cases.RECORDED:
            rows.append(cases.watched([param.numpy() for param in optimizer.params]))
    return np.array(rows), norms


# The same numbers as PyTorch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_twenty_steps_are_those_of_pytorch(name, dtype, place):
    kind, arguments = cases.OPTIMIZERS[name]
    params = parameters_at(place, dtype)
    rows, _ = run(getattr(minidl, kind)(params, **arguments), dtype)
    expected = cases.computed()[f"optimizer/{name}/{dtype}"]
    assert rows.dtype == expected.dtype == dtype
    assert_allclose(rows, expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", cases.CLIPPED)
def test_steps_with_clipped_gradients_are_those_of_pytorch(name, dtype, place):
    kind, arguments, max_norm = cases.CLIPPED[name]
    params = parameters_at(place, dtype)
    rows, norms = run(getattr(minidl, kind)(params, **arguments), dtype, max_norm)
    expected = cases.computed()[f"optimizer/{name}/{dtype}"]
    # the sum of 40,022 squares: as many roundings, as often up as down, sqrt(40,022) = 200
    eps = np.finfo(dtype).eps
    assert_allclose(norms, cases.computed()[f"norm/{name}"], rtol=200 * eps)
    assert_allclose(rows, expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_pytorch(name):
    expected = cases.computed()[f"schedule/{name}"]
    rates = [SCHEDULES[name](step) for step in range(cases.SCHEDULE_STEPS)]
    assert_allclose(rates, expected, rtol=0, atol=SCHEDULE_TOLERANCE)


def test_every_schedule_of_the_reference_is_compared():
    keys = {key.split("/")[1] for key in cases.computed() if key.startswith("schedule/")}
    assert keys == set(SCHEDULES)


def test_the_reference_was_written_by_the_version_that_it_documents():
    assert str(cases.computed()["torch"]).startswith("2.13.0")


# Steps


def test_sgd_by_hand():
    param = parameter([1.0, 2.0], gradient=[0.5, -1.0])
    SGD([param], lr=0.5).step()
    assert param.data.tolist() == [0.75, 2.5]


def test_momentum_by_hand():
    param = parameter([0.0], gradient=[1.0])
    optimizer = SGD([param], lr=1.0, momentum=0.5)
    positions = []
    for _ in range(3):
        optimizer.step()
        positions.append(param.data.item())
    assert positions == [-1.0, -2.5, -4.25]  # velocities 1, 1.5, 1.75


def test_the_first_step_of_adam_is_the_learning_rate_whatever_the_gradient():
    param = parameter([0.0, 0.0, 0.0], gradient=[1e-3, -5.0, 1e3], dtype=np.float64)
    Adam([param], lr=0.25, eps=0.0).step()
    assert_allclose(param.data, [-0.25, 0.25, -0.25], rtol=1e-14)  # a dozen roundings


def test_adamw_shrinks_parameters_without_a_slope():
    param = parameter([8.0], gradient=[0.0])
    AdamW([param], lr=0.5, weight_decay=0.5).step()
    assert param.data.item() == 6.0


@pytest.mark.parametrize(
    ("default", "spelled_out"),
    [
        (SGD, partial(SGD, lr=0.01, momentum=0.0, nesterov=False, weight_decay=0.0)),
        (Adam, partial(Adam, lr=0.001, betas=(0.9, 0.999), eps=1e-8)),
        (AdamW, partial(AdamW, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)),
    ],
)
def test_settings_that_are_left_out_are_those_that_are_documented(default, spelled_out):
    params = []
    for make in (default, spelled_out):
        param = parameter([1.0, -2.0], dtype=np.float64)
        optimizer = make([param])
        for gradient in (1e-7, -3e-8, 0.5):  # small ones, beside which eps counts
            param.grad = np.full(2, gradient)
            optimizer.step()
        params.append(param.data.tolist())
    assert params[0] == params[1]


OPTIMIZERS = [SGD, lambda p, lr=0.1: SGD(p, lr, momentum=0.9), Adam, AdamW]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_parameters_without_a_gradient_stay_as_they_are(make):
    with_gradient, without = parameter([1.0], gradient=[1.0]), parameter([1.0])
    make([with_gradient, without]).step()
    assert with_gradient.data.item() != 1.0
    assert without.data.item() == 1.0


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_parameters_of_any_shape(make, shape):
    param = parameter(np.ones(shape), gradient=np.ones(shape))
    optimizer = make([param])
    for _ in range(2):
        optimizer.step()
    assert (param.shape, param.dtype) == (shape, np.float32)
    assert (param.data < 1).all()


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_parameters_and_gradients_in_any_memory_order(make):
    start, gradient = numbers((4, 6), 0), numbers((4, 6), 1)
    plain, turned = parameter(start, gradient), parameter(start)
    turned.data = np.asfortranarray(turned.data)
    turned.grad = np.asfortranarray(gradient.astype(np.float32))
    for param in (plain, turned):
        optimizer = make([param])
        for _ in range(3):
            optimizer.step()
    assert_array_equal(turned.data, plain.data)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_step_changes_the_array_of_the_parameter_in_place(make):
    param = parameter([1.0], gradient=[1.0])
    array = param.data
    make([param]).step()
    assert param.data is array
    assert param.grad.tolist() == [1.0]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_numpy_numbers_as_settings_leave_float32_as_it_is(make):
    param = parameter([1.0], gradient=[1.0])
    make([param], np.float64(0.1)).step()
    clip_grad_norm([param], np.float64(0.1))
    assert param.data.dtype == param.grad.dtype == np.float32


# Several parameters, which optimizers treat as one


FORMULAS = {
    "sgd": (SGD, reference.sgd, {"lr": 0.1, "weight_decay": 0.05}),
    "momentum": (
        SGD,
        reference.sgd,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    ),
    "heavy ball": (SGD, reference.sgd, {"lr": 0.1, "momentum": 0.9}),
    "adam": (Adam, reference.adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    "adamw": (
        AdamW,
        reference.adam,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.05},
    ),
}
# Which parameter has a gradient at which step: neighbours start together and apart, some never.
HAVE_GRADIENTS = [
    [1, 1, 1, 0, 0, 1],
    [1, 0, 1, 1, 0, 1],
    [0, 0, 0, 0, 0, 0],
    [1, 1, 1, 1, 0, 0],
    [0, 1, 1, 1, 0, 1],
]


def compare(name, starts, gradients):
    """Train, and compare every element with the formula, one parameter after the other."""
    kind, formula, settings = FORMULAS[name]
    params = [Parameter(array.copy()) for array in starts]
    optimizer = kind(params, **settings)
    for together in gradients:
        for param, gradient in zip(params, together, strict=True):
            param.grad = gradient
        optimizer.step()
    for i, (param, start) in enumerate(zip(params, starts, strict=True)):
        own = [None if step[i] is None else step[i].reshape(-1) for step in gradients]
        expected = [
            formula(value, [None if g is None else g[j] for g in own], **settings)
            for j, value in enumerate(start.reshape(-1))
        ]
        assert param.dtype == start.dtype
        eps = np.finfo(start.dtype).eps
        assert_allclose(param.data.reshape(-1), expected, rtol=0, atol=16 * eps)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_without_a_gradient_are_passed_over_and_start_when_they_have_one(name, dtype):
    shapes = [(2, 3), (4,), (), (1, 2), (3,), (0,)]
    starts = [numbers(shape, i).astype(dtype) for i, shape in enumerate(shapes)]
    gradients = [
        [
            numbers(shape, 10 * step + i).astype(dtype) if has else None
            for i, (shape, has) in enumerate(zip(shapes, row, strict=True))
        ]
        for step, row in enumerate(HAVE_GRADIENTS, 1)
    ]
    compare(name, starts, gradients)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(
    "dtypes",
    [
        (np.float32, np.float64),
        (np.float64, np.float32),
        (np.float32, np.float64, np.float32),
    ],
    ids=lambda dtypes: " ".join(np.dtype(dtype).name for dtype in dtypes),
)
def test_each_parameter_keeps_the_precision_that_it_has(name, dtypes):
    starts = [numbers((3,), i).astype(dtype) / 3 for i, dtype in enumerate(dtypes)]
    gradients = [
        [numbers((3,), 10 * step + i).astype(dtype) / 3 for i, dtype in enumerate(dtypes)]
        for step in range(1, 4)
    ]
    compare(name, starts, gradients)


@pytest.mark.parametrize("name", FORMULAS)
def test_small_parameters_beside_large_ones_in_any_memory_order(name):
    # a quarter of a million elements, cut where it falls; the formula of all elements at once
    kind, _, settings = FORMULAS[name]
    shapes = [(7,), (300, 500), (1,), *[(i % 4, 3) for i in range(40)], (201, 499), (5,), ()]
    starts = [numbers(shape, i) for i, shape in enumerate(shapes)]
    params = [Parameter(array.astype(np.float32)) for array in starts]
    for param in params[1:3] + params[-3:-2]:
        param.data = np.asfortranarray(param.data)
    optimizer = kind(params, **settings)
    ends = np.cumsum([array.size for array in starts])[:-1]
    expected = np.concatenate([param.data.ravel() for param in params]).astype(float)
    velocity, mean, square = np.zeros((3, expected.size))
    lr, decay = settings["lr"], settings.get("weight_decay", 0.0)
    for step in range(1, 4):
        for i, param in enumerate(params):
            param.grad = numbers(param.shape, 100 * step + i).astype(np.float32)
        params[1].grad = np.asfortranarray(params[1].grad)
        g = np.concatenate([param.grad.ravel() for param in params]).astype(float)
        optimizer.step()
        if kind is SGD:
            g += decay * expected
            momentum = settings.get("momentum", 0.0)
            velocity = momentum * velocity + g
            expected -= lr * (g + momentum * velocity if settings.get("nesterov") else velocity)
        else:
            expected *= 1 - lr * decay
            (b1, b2), eps = settings["betas"], settings["eps"]
            mean = b1 * mean + (1 - b1) * g
            square = b2 * square + (1 - b2) * g * g
            root = np.sqrt(square / (1 - b2**step)) + eps
            expected -= lr * mean / (1 - b1**step) / root
    for param, wanted in zip(params, np.split(expected, ends), strict=True):
        assert param.dtype == np.float32
        assert_allclose(param.data.ravel(), wanted, rtol=0, atol=TOLERANCE["float32"])


def test_equal_models_trained_alike_stay_equal():
    models = []
    for _ in range(2):
        minidl.seed(3)
        model = Sequential([Dense(5, "relu"), Dense(2)], input_shape=(4,))
        optimizer = Adam(model.parameters(), lr=0.01)
        x = Tensor(numbers((8, 4), 0).astype(np.float32))
        for _ in range(5):
            optimizer.zero_grad()
            minidl.mse(model(x), np.ones((8, 2))).backward()
            optimizer.step()
        models.append(model.state_dict())
    for name, array in models[0].items():
        assert_array_equal(array, models[1][name])


# The state of an optimizer


def trained(make, steps):
    """An optimizer of two parameters, (2, 3) and (4,), after so many steps."""
    params = [parameter(numbers(shape, seed)) for seed, shape in enumerate([(2, 3), (4,)])]
    optimizer = make(params)
    take_steps(optimizer, range(steps))
    return optimizer


def take_steps(optimizer, numbered):
    for step in numbered:
        for place, param in enumerate(optimizer.params):
            param.grad = numbers(param.shape, 10 * step + place).astype(np.float32)
        optimizer.step()


@pytest.mark.parametrize(
    ("make", "memory"),
    [
        (lambda p: SGD(p, lr=0.1), set()),
        (lambda p: SGD(p, lr=CosineDecay(0.1, 9), momentum=0.9), {"velocity"}),
        (lambda p: Adam(p, lr=0.1), {"mean", "square"}),
        (lambda p: AdamW(p, lr=OneCycle(0.1, 9)), {"mean", "square"}),
    ],
)
def test_an_optimizer_goes_on_from_the_state_of_another(make, memory):
    first = trained(make, steps=3)
    state = first.state_dict()
    assert state["step_count"] == 3
    assert state["taken"] == [3, 3]
    assert state["lr"] == (first.lr if isinstance(first.lr, float) else None)
    assert {name: array.shape for name, array in state["memory"].items()} == dict.fromkeys(
        memory, (10,)
    )
    kept = copy.deepcopy(state)
    second = make([Parameter(param.data.copy()) for param in first.params])
    second.load_state_dict(state)
    for optimizer in (first, second):
        take_steps(optimizer, range(3, 6))
    for one, other in zip(first.params, second.params, strict=True):
        assert_array_equal(one.data, other.data)
    assert state["taken"] == kept["taken"]
    for name, array in state["memory"].items():
        assert_array_equal(array, kept["memory"][name])


def test_the_learning_rate_is_part_of_the_state():
    first, second = trained(lambda p: SGD(p, lr=0.1), 1), trained(lambda p: SGD(p, lr=0.5), 0)
    second.load_state_dict(first.state_dict())
    assert second.lr == 0.1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: Adam([parameter(np.zeros(10))]),
            r"of 1 parameters of 10 numbers, got 2 and \{'mean': \(10,\), 'square': \(10,\)\}",
        ),
        (
            lambda: Adam([parameter(np.zeros(6)), parameter(np.zeros(5))]),
            "of 2 parameters of 11 numbers, got 2 and ",
        ),
        (
            lambda: Adam([parameter(np.zeros(6)), parameter(np.zeros(4))], CosineDecay(0.1, 9)),
            "the learning rate was a number, here it is a schedule",
        ),
    ],
)
def test_the_state_of_another_training_is_refused_and_changes_nothing(other, message):
    state = trained(lambda p: Adam(p, lr=0.1), 2).state_dict()
    optimizer = other()
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.state_dict() == before


@pytest.mark.parametrize("wrong", [{"taken": [2, -1]}, {"step_count": -1}])
def test_a_state_of_fewer_steps_than_none_is_refused(wrong):
    optimizer = trained(lambda p: Adam(p, lr=0.1), 2)
    with pytest.raises(ValueError, match="expected counts of steps, got"):
        optimizer.load_state_dict(optimizer.state_dict() | wrong)
    optimizer.load_state_dict(optimizer.state_dict() | {"taken": [0, 0], "step_count": 0})


def test_the_state_of_a_schedule_is_refused_for_a_number():
    state = trained(lambda p: SGD(p, lr=CosineDecay(0.1, 9)), 2).state_dict()
    optimizer = trained(lambda p: SGD(p, lr=0.1), 0)
    with pytest.raises(ValueError, match="was a schedule, here it is a number"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.1),
        lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        lambda p: Adam(p, lr=CosineDecay(0.2, 300)),
        lambda p: AdamW(p, lr=CosineDecay(0.2, 300), weight_decay=0.0),
    ],
)
def test_every_optimizer_finds_the_bottom_of_a_bowl(make):
    target = np.array([3.0, -2.0])
    param = parameter([0.0, 0.0], dtype=np.float64)
    optimizer = make([param])
    for _ in range(300):
        optimizer.zero_grad()
        minidl.mse(param, target, reduction="sum").backward()
        optimizer.step()
    # SGD shrinks the distance at least as fast as 0.95 a step, 2e-7 in all; Adam's last rates, far
    # below 0.2, bound what is left of its swings
    assert_allclose(param.data, target, rtol=0, atol=1e-3)


def test_zero_grad_forgets_all_gradients():
    params = [parameter([1.0], gradient=[1.0]), parameter([1.0])]
    SGD(params).zero_grad()
    assert [param.grad for param in params] == [None, None]


def test_step_count_counts_steps():
    optimizer = SGD([parameter([1.0], gradient=[1.0])])
    for count in range(3):
        assert optimizer.step_count == count
        optimizer.step()


def test_parameters_may_come_from_a_generator():
    model = Sequential([Dense(3)], input_shape=(2,))
    optimizer = SGD(param for _, param in model.named_parameters())
    assert len(optimizer.params) == 2


def test_the_learning_rate_can_be_set_between_steps():
    param = parameter([0.0], gradient=[1.0])
    optimizer = SGD([param], lr=1.0)
    optimizer.step()
    optimizer.lr = 0.25
    optimizer.step()
    assert optimizer.current_lr == 0.25
    assert param.data.item() == -1.25
    optimizer.lr = StepDecay(1.0, 1, 0.5)  # a schedule counts all steps, those before it too
    assert optimizer.current_lr == 0.25


def test_a_schedule_gives_each_step_its_learning_rate():
    param = parameter([0.0], gradient=[1.0])
    optimizer = SGD([param], lr=StepDecay(1.0, 2, 0.5))
    positions = []
    for _ in range(5):
        optimizer.step()
        positions.append(param.data.item())
    assert positions == [-1.0, -2.0, -2.5, -3.0, -3.25]


def test_a_schedule_of_ones_own_is_a_class_with_a_call():
    class Halves(Schedule):
        def __call__(self, step):
            return 0.5**step

    optimizer = SGD([parameter([0.0], gradient=[1.0])], lr=WarmUp(Halves(), 1, start=1.0))
    rates = []
    for _ in range(4):
        rates.append(optimizer.current_lr)
        optimizer.step()
    assert rates == [1.0, 1.0, 0.5, 0.25]


# Clipping


def test_gradients_within_the_norm_stay_as_they_are():
    params = [parameter([0.0], gradient=[3.0]), parameter([0.0], gradient=[4.0])]
    assert clip_grad_norm(params, 5.1) == 5.0
    assert [param.grad.item() for param in params] == [3.0, 4.0]


def test_gradients_are_scaled_together_to_the_norm():
    params = [parameter([0.0], gradient=[3.0]), parameter([[0.0]], gradient=[[4.0]])]
    assert clip_grad_norm(params, 1.0) == 5.0
    scaled = [param.grad.item() for param in params]
    # the 1e-6 that PyTorch adds to the norm takes 2e-7 of the result away
    assert scaled == pytest.approx([0.6, 0.8], rel=1e-6)
    assert math.hypot(*scaled) <= 1.0


def test_clipping_passes_over_parameters_without_a_gradient():
    assert clip_grad_norm([parameter([1.0])], 1.0) == 0.0
    assert clip_grad_norm([], 1.0) == 0.0


def test_clipping_takes_gradients_in_any_memory_order():
    param = parameter(np.zeros((3, 2)))
    param.grad = np.asfortranarray(np.full((3, 2), 2.0, np.float32))
    # float32, and the 1e-6 that PyTorch adds to the norm
    assert clip_grad_norm([param], 1.0) == pytest.approx(math.sqrt(24), rel=1e-6)
    assert_allclose(param.grad, np.full((3, 2), 1 / math.sqrt(6)), rtol=1e-6)


def test_no_limit_clips_nothing():
    param = parameter([0.0], gradient=[1024.0])
    assert clip_grad_norm([param], math.inf) == 1024.0
    assert param.grad.item() == 1024.0


@pytest.mark.parametrize("max_norm", [0, -1.0, math.nan])
def test_clipping_refuses_a_norm_that_is_not_positive(max_norm):
    with pytest.raises(ValueError, match="max_norm must be positive"):
        clip_grad_norm([parameter([0.0], gradient=[1.0])], max_norm)


# Schedules, by what they document


def test_step_decay_multiplies_every_step_size_steps():
    schedule = StepDecay(1.0, 3, 0.5)
    assert [schedule(step) for step in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_cosine_decay_ends_at_its_final_rate_and_stays_there():
    schedule = CosineDecay(0.5, 10, final=0.125)
    assert schedule(0) == 0.5
    assert schedule(5) == pytest.approx((0.5 + 0.125) / 2, rel=1e-15)
    assert schedule(10) == schedule(11) == schedule(1000) == 0.125


def test_warm_up_starts_at_nothing_unless_told_and_reaches_the_whole_rate():
    schedule = WarmUp(0.5, 4)
    assert [schedule(step) for step in range(6)] == [0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert WarmUp(0.5, 4, start=0.5)(0) == 0.25


def test_one_cycle_may_begin_and_end_above_its_top():
    schedule = OneCycle(1.0, 3, rise=0.4, div_factor=0.5, final_div_factor=0.25)
    assert [schedule(0), schedule(2)] == [2, 8]


def test_a_step_decay_divides_by_ten_unless_told_otherwise():
    schedule = StepDecay(1.0, 2)
    assert [schedule(step) for step in (0, 1, 2, 3, 4)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_what_follows_a_warm_up_starts_at_its_step_0():
    schedule = WarmUp(StepDecay(1.0, 2, 0.5), 3)
    assert [schedule(step) for step in range(3, 8)] == [1, 1, 0.5, 0.5, 0.25]


def test_one_cycle_starts_rises_and_falls_as_documented():
    schedule = OneCycle(1.0, 100, rise=0.31, div_factor=10, final_div_factor=100)
    rates = [schedule(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=1e-14)
    assert rates[30] == 1.0 == max(rates)
    assert rates[99] == pytest.approx(1e-3, rel=1e-12)  # what is left of rates around 1
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert schedule(1000) == schedule(99)


@pytest.mark.parametrize(
    ("steps", "rise", "rates"),
    [
        (4, 0.5, [0.04, 1, 0.5, 4e-6]),  # from step 0 to 1 it rises, from 1 to 3 it falls
        (4, 0.25, [1, 0.75, 0.25, 4e-6]),  # the top is step 0
        (4, 0.0, [0.853553, 0.5, 0.146447, 4e-6]),  # the top would have been before
        (2, 1.0, [0.04, 1, 4e-6]),  # the top is the last step
        (1, 1.0, [1, 4e-6]),
    ],
)
def test_one_cycle_of_few_steps_rises_and_falls_between_its_ends(steps, rise, rates):
    schedule = OneCycle(1.0, steps, rise=rise)
    assert [schedule(step) for step in range(len(rates))] == pytest.approx(rates, abs=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_of_few_steps_stays_between_its_rates_and_ends_at_the_last(steps):
    rates = [OneCycle(1.0, steps)(step) for step in range(steps + 2)]
    lowest = 1 / 25 / 1e4
    assert all(lowest <= rate <= 1 for rate in rates)
    assert rates[-1] == lowest


@pytest.mark.parametrize("make", [StepDecay, CosineDecay, WarmUp, OneCycle])
@pytest.mark.parametrize("steps", [0, -1])
def test_schedules_refuse_no_steps(make, steps):
    with pytest.raises(ValueError, match=f"at least 1, got {steps}"):
        make(0.1, steps)


# What optimizers refuse


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_optimizers_refuse_nothing(make):
    with pytest.raises(ValueError, match="at least one parameter"):
        make([])


@pytest.mark.parametrize("thing", [Tensor([1.0]), np.ones(3), 3, "weight"])
def test_optimizers_refuse_what_has_no_gradient(thing):
    with pytest.raises(ValueError, match="requires_grad=True, got"):
        SGD([thing])


def test_optimizers_refuse_the_results_of_operations():
    # they never have a .grad: a step would change nothing, in silence
    with pytest.raises(ValueError, match="requires_grad"):
        SGD([parameter([1.0]) * 2])


def test_optimizers_refuse_one_tensor_in_the_place_of_several():
    # its rows would be taken for parameters, and they are results of indexing
    with pytest.raises((TypeError, ValueError)):
        SGD(parameter([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("lr", [-0.1, math.nan])
def test_optimizers_refuse_a_negative_learning_rate(make, lr):
    with pytest.raises(ValueError, match="lr must not be negative"):
        make([parameter([1.0])], lr=lr)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (SGD, "momentum", -0.1),
        (SGD, "weight_decay", -0.1),
        (Adam, "eps", -1e-8),
        (AdamW, "weight_decay", -0.1),
    ],
)
def test_optimizers_refuse_negative_settings_by_name(make, name, value):
    with pytest.raises(ValueError, match=f"{name} must not be negative, got {value}"):
        make([parameter([1.0])], **{name: value})


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="momentum > 0"):
        SGD([parameter([1.0])], nesterov=True)


@pytest.mark.parametrize("make", [Adam, AdamW])
@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan), (0.9,)])
def test_adam_refuses_betas_out_of_range(make, betas):
    with pytest.raises(ValueError, match="betas must be two numbers from 0 to 1"):
        make([parameter([1.0])], betas=betas)


def test_an_optimizer_says_how_it_steps():
    with pytest.raises(TypeError, match="abstract"):
        Optimizer([parameter([1.0])], 0.1)


def test_optimizers_refuse_a_parameter_given_twice():
    weight = parameter([1.0])
    with pytest.raises(ValueError, match="each parameter once"):
        SGD([weight, weight])


@pytest.mark.parametrize(
    "make",
    [
        lambda: StepDecay(-1.0, 2),
        lambda: CosineDecay(-1.0, 2),
        lambda: CosineDecay(1.0, 2, final=-1.0),
        lambda: WarmUp(-1.0, 2),
        lambda: WarmUp(1.0, 2, start=-1.0),
        lambda: OneCycle(-1.0, 2),
        lambda: OneCycle(1.0, 2, rise=1.5),
        lambda: OneCycle(1.0, 2, rise=-0.5),
        lambda: OneCycle(1.0, 2, div_factor=0),
    ],
)
def test_schedules_refuse_numbers_out_of_range(make):
    with pytest.raises(ValueError, match=r"must not be negative, got -1\.0|OneCycle expects rise"):
        make()


def test_an_optimizer_without_an_update_is_none():
    with pytest.raises(TypeError, match="abstract"):
        Optimizer([parameter([1.0])], 0.1)


def test_a_schedule_without_a_call_is_none():
    with pytest.raises(TypeError, match="abstract"):
        Schedule()


def test_optimizers_refuse_a_parameter_they_cannot_write_to():
    array = np.ones(3)
    array.flags.writeable = False
    with pytest.raises(ValueError, match=r"one of shape \(3,\) is read-only"):
        SGD([Tensor(array, requires_grad=True)])


def test_clipping_refuses_one_tensor_in_the_place_of_several():
    with pytest.raises(TypeError, match=r"got one tensor; write \[tensor\]"):
        clip_grad_norm(parameter([1.0]), 1.0)


def test_moments_follow_a_model_to_another_precision():
    weight = parameter(np.ones(3, np.float32))
    optimizer = Adam([weight])
    for dtype in (np.float32, np.float64):
        before = weight.data.astype(dtype)
        weight.data, weight.grad = before.copy(), np.ones(3, dtype)
        optimizer.step()
    assert weight.dtype == np.float64
    # Of equal gradients each step is the learning rate. Moments in float32 would be 1e-7 beside it.
    assert_allclose(before - weight.data, np.full(3, 0.001 / (1 + 1e-8)), rtol=1e-12)


def test_the_norm_of_large_gradients_does_not_overflow():
    weights = [parameter(np.ones(1, np.float32)) for _ in range(4)]
    for weight in weights:
        weight.grad = np.full(1, 1.5e19, np.float32)
    assert clip_grad_norm(weights, 1.0) == pytest.approx(3e19)
    assert [w.grad[0] for w in weights] == pytest.approx([0.5] * 4)


def test_the_state_of_another_kind_of_optimizer_is_refused():
    def stepped(make):
        param = Tensor([1.0], requires_grad=True)
        param.grad = np.float32([0.5])
        optimizer = make([param])
        optimizer.step()
        return optimizer

    kinds = {
        "plain": minidl.SGD,
        "momentum": partial(minidl.SGD, momentum=0.9),
        "Adam": minidl.Adam,
    }
    states = {kind: stepped(make).state_dict() for kind, make in kinds.items()}
    for kind, make in kinds.items():
        for other, state in states.items():
            optimizer = stepped(make)
            before = optimizer.state_dict()
            if other == kind:
                optimizer.load_state_dict(state)
                continue
            with pytest.raises(ValueError, match=r"which remembers .* from its first step on"):
                optimizer.load_state_dict(state)
            assert str(optimizer.state_dict()) == str(before)


def test_parameters_that_share_memory_go_on_sharing_it():
    a = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), requires_grad=True)
    b = Tensor(a.data.T, requires_grad=True)  # as in an autoencoder whose weights are tied
    array = b.data
    a.grad, b.grad = np.ones((2, 3), np.float32), np.full((3, 2), 2, np.float32)
    minidl.SGD([a, b], lr=1.0).step()
    assert b.data is array
    assert np.shares_memory(a.data, b.data)
    assert a.numpy().ravel().tolist() == [x - 3.0 for x in range(6)]  # by 1 and by 2


MAKES = [partial(SGD, lr=0.1), partial(SGD, lr=0.1, momentum=0.9), partial(Adam, lr=0.1)]


def two_parameters():
    """One in a memory order of its own."""
    params = [parameter(numbers((2, 3), 0)), parameter(numbers((4, 2), 1).T)]
    assert not params[1].data.flags.c_contiguous
    return params


def step_with(optimizer, params, steps):
    for step in steps:
        for number, param in enumerate(params):
            param.grad = numbers(param.shape, 10 * step + number).astype(param.dtype)
        optimizer.step()


@pytest.mark.parametrize("make", MAKES)
def test_a_step_is_taken_on_the_arrays_that_the_parameters_have_now(make):
    plain, replaced = two_parameters(), two_parameters()
    expected, optimizer = make(plain), make(replaced)
    step_with(expected, plain, range(2))
    step_with(optimizer, replaced, range(2))
    before = [param.data for param in replaced]
    for param in replaced:
        param.data = np.array(param.data)
    kept = [array.copy() for array in before]
    step_with(expected, plain, range(2, 4))
    step_with(optimizer, replaced, range(2, 4))
    for one, other, array, copied in zip(replaced, plain, before, kept, strict=True):
        assert_array_equal(one.data, other.data)
        assert_array_equal(array, copied)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))]
)
def test_a_copy_of_parameters_and_optimizer_goes_on_by_itself(make, duplicate):
    params = two_parameters()
    optimizer = make(params)
    step_with(optimizer, params, range(2))
    their_params, their_optimizer = duplicate((params, optimizer))
    before = [param.data.copy() for param in params]
    step_with(their_optimizer, their_params, range(2, 4))
    for param, array in zip(params, before, strict=True):
        assert_array_equal(param.data, array)
    step_with(optimizer, params, range(2, 4))
    for param, theirs in zip(params, their_params, strict=True):
        assert_array_equal(param.data, theirs.data)


def test_momentum_that_is_set_later_begins_then():
    changed, plain = two_parameters(), two_parameters()
    optimizer = SGD(changed, lr=0.1)
    step_with(optimizer, changed, range(2))
    for param, other in zip(plain, changed, strict=True):
        param.data = other.data.copy()
    optimizer.momentum = 0.9
    step_with(optimizer, changed, range(2, 5))
    step_with(SGD(plain, lr=0.1, momentum=0.9), plain, range(2, 5))
    for one, other in zip(changed, plain, strict=True):
        assert_array_equal(one.data, other.data)


def test_arrays_that_were_replaced_are_freed_after_the_next_step():
    params = two_parameters()
    optimizer = Adam(params)
    step_with(optimizer, params, range(2))
    alive = [weakref.ref(param.data) for param in params]
    for param in params:
        param.data = param.data.copy()
    step_with(optimizer, params, range(2, 3))
    assert [ref() for ref in alive] == [None, None]


@pytest.mark.parametrize("make", MAKES)
def test_a_parameter_that_is_skipped_now_and_then_steps_as_if_alone(make):
    together, alone = two_parameters(), two_parameters()
    optimizer = make(together)
    each = [make([param]) for param in alone]
    for step in range(8):
        for number, (one, other) in enumerate(zip(together, alone, strict=True)):
            taken = step & (1 << number)
            one.grad = numbers(one.shape, 10 * step + number).astype(np.float32) if taken else None
            other.grad = one.grad
        optimizer.step()
        for single in each:
            single.step()
    for one, other in zip(together, alone, strict=True):
        assert_array_equal(one.data, other.data)


@pytest.mark.parametrize("sizes", [[5000], [5000, 3], [20_000]], ids=str)
def test_settings_that_are_numpys_numbers_do_what_their_values_do(sizes):
    results = []
    for number in (float, np.float64):
        params = [Parameter(numbers((n,), n).astype(np.float32)) for n in sizes]
        betas = number(0.9), number(0.99)
        trained = Adam(params, lr=number(0.3), betas=betas, eps=number(1e-3))
        for step in range(3):
            for param in params:
                param.grad = numbers(param.shape, step).astype(np.float32)
            trained.step()
        results.append([param.data for param in params])
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)
