"""Write reference.npz: what PyTorch computes where minidl promises to do the same.

Run it in the repository root, in an environment with NumPy and torch 2.13.0:

    PYTHONPATH=tests python tests/pytorch/make_reference.py

The tests read the file and need no PyTorch. All inputs come from `reference.numbers`, from which
the tests make them again. Images and filters have minidl's order of axes, channels last; they are
turned to PyTorch's around each call. Everything is computed on the CPU, in one thread.

What the file holds:
    torch                       the version that wrote it
    optimizer/NAME/DTYPE        a row for each step in RECORDED: the watched elements
    norm/NAME                   the norm of all gradients before each step
    schedule/NAME               the learning rate of each step
    GROUP/CASE/out, GROUP/CASE/INPUT   a value, and its gradient with respect to an input
"""

import numpy as np
import torch
from pytorch import cases
from reference import numbers
from torch.nn import functional
from torch.optim import lr_scheduler


def channels_first(images):
    return images.permute(0, 3, 1, 2)


def channels_last(images):
    return images.permute(0, 2, 3, 1)


def with_gradients(prefix, function, **inputs):
    """The value for some arrays, and the gradients that `numbers` as its gradient leads to."""
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in inputs.items()}
    out = function(**tensors)
    out.backward(torch.tensor(numbers(tuple(out.shape), 99)))
    results = {f"{prefix}/{name}": tensor.grad.numpy() for name, tensor in tensors.items()}
    return {f"{prefix}/out": out.detach().numpy(), **results}


def optimizer(name, arguments, dtype, max_norm=None):
    """The watched elements after each recorded step, and the norms of all gradients."""
    parameters = [torch.tensor(array, requires_grad=True) for array in cases.parameters(dtype)]
    stepper = getattr(torch.optim, name)(parameters, **arguments)
    rows, norms = [], []
    for step in range(cases.STEPS):
        for parameter, gradient in zip(parameters, cases.gradients(step, dtype), strict=True):
            parameter.grad = None if gradient is None else torch.tensor(gradient)
        if max_norm is not None:
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, max_norm)))
        stepper.step()
        if step in cases.RECORDED:
            rows.append(cases.watched([parameter.detach().numpy() for parameter in parameters]))
    return np.array(rows), np.array(norms)


def optimizers():
    results = {}
    for dtype in ("float32", "float64"):
        for name, arguments in cases.OPTIMIZERS.items():
            results[f"optimizer/{name}/{dtype}"], _ = optimizer(*arguments, dtype)
        for name, arguments in cases.CLIPPED.items():
            table, norms = optimizer(arguments[0], arguments[1], dtype, arguments[2])
            results[f"optimizer/{name}/{dtype}"] = table
            if dtype == "float64":
                results[f"norm/{name}"] = norms
    return results


def schedules():
    """The learning rate of each step; tests/test_optim.py has minidl's schedules by these names."""
    steps = cases.SCHEDULE_STEPS

    def warm_up_and_cosine(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=6)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - 6)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[6])

    made = {
        "step": lambda o: lr_scheduler.StepLR(o, step_size=5, gamma=0.3),
        "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=steps, eta_min=0.01),
        "cosine_to_zero": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=steps),
        "warm_up": lambda o: lr_scheduler.LinearLR(o, start_factor=0.25, total_iters=8),
        "warm_up_and_cosine": warm_up_and_cosine,
        "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=steps),
        "one_cycle_late": lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=0.5, total_steps=steps, pct_start=0.7, div_factor=10, final_div_factor=100
        ),
        "one_cycle_odd": lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=0.5, total_steps=steps, pct_start=0.33
        ),
    }
    results = {}
    for name, make in made.items():
        stepper = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5, momentum=0.9)
        scheduler = make(stepper)
        rates = []
        for step in range(steps):
            rates.append(stepper.param_groups[0]["lr"])
            stepper.step()
            if step < steps - 1:
                scheduler.step()
        results[f"schedule/{name}"] = np.array(rates, dtype=np.float64)
    return results


def convolutions():
    results = {}
    for name, case in cases.CONVOLUTIONS.items():
        (top, bottom), (left, right) = case.get("padding", ((0, 0), (0, 0)))

        def convolve(x, weight, bias, case=case, sides=(left, right, top, bottom)):
            padded = functional.pad(channels_first(x), sides)
            filters = weight.permute(3, 2, 0, 1)
            stride, dilation = case.get("strides", (1, 1)), case.get("dilation", (1, 1))
            return channels_last(functional.conv2d(padded, filters, bias, stride, 0, dilation))

        results |= with_gradients(
            f"conv2d/{name}",
            convolve,
            x=numbers(case["x"], 1),
            weight=numbers(case["weight"], 2),
            bias=numbers(case["weight"][3:], 3),
        )
    return results


def poolings():
    results = {}
    for name, case in cases.POOLINGS.items():
        window = case["pool_size"], case["strides"], case["padding"]

        def largest(x, window=window):
            return channels_last(functional.max_pool2d(channels_first(x), *window))

        def mean(x, window=window):
            images = channels_first(x)
            return channels_last(functional.avg_pool2d(images, *window, count_include_pad=False))

        x = cases.images(case["x"], 4)
        results |= with_gradients(f"max_pool/{name}", largest, x=x)
        results |= with_gradients(f"avg_pool/{name}", mean, x=x)
    return results


def layers():
    results = with_gradients(
        "dense/plain",
        lambda x, weight, bias: functional.linear(x, weight.T, bias),
        x=numbers((2, 3, 4), 1),
        weight=numbers((4, 5), 2),
        bias=numbers((5,), 3),
    )
    mean, variance = torch.tensor(numbers((3,), 4)), torch.tensor(numbers((3,), 5) + 2.5)

    def normalize(x, gamma, beta, training):
        running = mean.clone(), variance.clone()
        images = channels_first(x)
        normal = functional.batch_norm(images, *running, gamma, beta, training, eps=1e-3)
        return channels_last(normal)

    for name, training in (("train", True), ("eval", False)):
        results |= with_gradients(
            f"batch_norm/{name}",
            lambda training=training, **inputs: normalize(training=training, **inputs),
            x=numbers((4, 3, 2, 3), 1),
            gamma=numbers((3,), 2),
            beta=numbers((3,), 3),
        )
    return results


def losses():
    results = {}
    for reduction in cases.REDUCTIONS:
        for name, (labels, smoothing) in cases.CROSS_ENTROPIES.items():
            settings = {"reduction": reduction, "label_smoothing": smoothing}
            results |= with_gradients(
                f"cross_entropy/{name}_{reduction}",
                lambda x, labels=labels, settings=settings: functional.cross_entropy(
                    x, torch.tensor(labels), **settings
                ),
                x=cases.LOGITS,
            )
        rows = torch.tensor(cases.ROWS)
        results |= with_gradients(
            f"binary_cross_entropy/{reduction}",
            lambda x, rows=rows, reduction=reduction: functional.binary_cross_entropy_with_logits(
                x, rows, reduction=reduction
            ),
            x=cases.LOGITS,
        )
        results |= with_gradients(
            f"mse/{reduction}",
            lambda x, rows=rows, reduction=reduction: functional.mse_loss(
                x, rows, reduction=reduction
            ),
            x=cases.LOGITS,
        )
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    np.savez_compressed(
        cases.FILE,
        torch=np.array(torch.__version__),
        **optimizers(),
        **schedules(),
        **convolutions(),
        **poolings(),
        **layers(),
        **losses(),
    )
