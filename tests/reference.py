"""Plain references for the kernels: every formula written out with Python loops, however slow.

Nothing here is taken from minidl, so that a mistake there cannot repeat itself here. Sums are added
up in float64 whatever the input. A window is given by four pairs, as in the formulas of textbooks:
size, strides, padding ((top, bottom), (left, right)) and dilation.
"""

import math

import numpy as np


def numbers(shape, seed):
    """Numbers from -2 to 2 that look random: the same on every machine and with every NumPy.

    They are the counters 0, 1, 2, ... through the finalizer of SplitMix64 (G. Steele, D. Lea,
    C. Flood: Fast splittable pseudorandom number generators, 2014). Each is a multiple of 2**-22,
    which float32 holds exactly.
    """
    z = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64((seed << 32) + 1)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2**22 - 2).reshape(shape)


def eighths(shape, seed):
    """Multiples of 1/8 from -2 to 2, with many ties.

    Float32 sums of fewer than 2**17 products of two of them are exact in any order, so that two
    ways to compute such a sum must agree to the last bit.
    """
    return np.floor(numbers(shape, seed) * 8) / 8


# Windows


def places(pixels, taps, stride, padding, dilation):
    """How many places a window takes along one axis, counted one by one."""
    count = 0
    while count * stride + (taps - 1) * dilation < pixels + sum(padding):
        count += 1
    return count


def taps(image, size, strides, padding, dilation=(1, 1)):
    """All that a window sees: (place, tap, pixel) for each tap that lies on the image."""
    rows, columns = (
        places(*axis) for axis in zip(image, size, strides, padding, dilation, strict=True)
    )
    for place in np.ndindex(rows, columns):
        for tap in np.ndindex(*size):
            pixel = tuple(
                place[axis] * strides[axis] + tap[axis] * dilation[axis] - padding[axis][0]
                for axis in (0, 1)
            )
            if all(0 <= pixel[axis] < image[axis] for axis in (0, 1)):
                yield place, tap, pixel


def output_size(image, size, strides, padding, dilation=(1, 1)):
    """(OH, OW)."""
    return tuple(
        places(*axis) for axis in zip(image, size, strides, padding, dilation, strict=True)
    )


# Convolution


def conv2d(x, weight, bias, window):
    """(N, H, W, C_in) and (KH, KW, C_in, C_out) to (N, OH, OW, C_out)."""
    out = np.zeros((len(x), *output_size(x.shape[1:3], *window), weight.shape[3]))
    for n in range(len(x)):
        for place, tap, pixel in taps(x.shape[1:3], *window):
            for channel in range(x.shape[3]):
                out[n][place] += float(x[n][pixel][channel]) * weight[tap][channel].astype(float)
    return out if bias is None else out + bias


def conv2d_input_gradient(d, weight, window, image):
    """Each pixel collects from all places that saw it."""
    gradient = np.zeros((len(d), *image, weight.shape[2]))
    for n in range(len(d)):
        for place, tap, pixel in taps(image, *window):
            for channel in range(weight.shape[2]):
                gradient[n][pixel][channel] += sum(
                    float(a) * float(b)
                    for a, b in zip(d[n][place], weight[tap][channel], strict=True)
                )
    return gradient


def conv2d_weight_gradient(x, d, window):
    """Each tap collects from all pixels that it saw."""
    gradient = np.zeros((*window[0], x.shape[3], d.shape[3]))
    for n in range(len(x)):
        for place, tap, pixel in taps(x.shape[1:3], *window):
            for channel in range(x.shape[3]):
                gradient[tap][channel] += float(x[n][pixel][channel]) * d[n][place].astype(float)
    return gradient


# Pooling


def max_pool(x, window, d=None):
    """The largest pixel of each place; with d, where its gradient goes: to the first of equals."""
    size = output_size(x.shape[1:3], *window)
    out = np.empty((len(x), *size, x.shape[3]))
    gradient = np.zeros(x.shape)
    for n in range(len(x)):
        for channel in range(x.shape[3]):
            best = {}
            for place, _, pixel in taps(x.shape[1:3], *window):
                value = float(x[n][pixel][channel])
                if place not in best or value > best[place][0]:
                    best[place] = value, pixel
            for place, (value, pixel) in best.items():
                out[n][place][channel] = value
                if d is not None:
                    gradient[n][pixel][channel] += d[n][place][channel]
    return out if d is None else gradient


def average_pool(x, window, d=None):
    """The mean of the pixels of each place; with d, each pixel's share of its gradient."""
    out = np.zeros((len(x), *output_size(x.shape[1:3], *window), x.shape[3]))
    gradient = np.zeros(x.shape)
    count = {}
    for place, _, _ in taps(x.shape[1:3], *window):
        count[place] = count.get(place, 0) + 1
    for n in range(len(x)):
        for place, _, pixel in taps(x.shape[1:3], *window):
            out[n][place] += x[n][pixel].astype(float) / count[place]
            if d is not None:
                gradient[n][pixel] += d[n][place].astype(float) / count[place]
    return out if d is None else gradient


def conv2d_and_more(x, weight, bias, window, relu, pool):
    """Convolution, max(x, 0) if asked for, and max pooling, one after the other."""
    out = conv2d(x, weight, bias, window)
    return max_pool(np.maximum(out, 0) if relu else out, (pool, pool, ((0, 0), (0, 0))))


def conv2d_and_more_gradients(x, weight, bias, window, relu, pool, d):
    """The gradients of `conv2d_and_more`: of images, weight and bias."""
    out = conv2d(x, weight, bias, window)
    d = max_pool(np.maximum(out, 0) if relu else out, (pool, pool, ((0, 0), (0, 0))), d)
    if relu:
        d = np.where(out > 0, d, 0)
    return (
        conv2d_input_gradient(d, weight, window, x.shape[1:3]),
        conv2d_weight_gradient(x, d, window),
        d.sum(axis=(0, 1, 2)),
    )


# Softmax and losses, one row at a time


def softmax(row):
    """exp(x) / sum(exp(x)) of a list."""
    powers = [math.exp(float(x) - float(max(row))) for x in row]
    return [power / math.fsum(powers) for power in powers]


def log_softmax(row):
    """x - log(sum(exp(x))) of a list."""
    largest = float(max(row))
    total = largest + math.log(math.fsum(math.exp(float(x) - largest) for x in row))
    return [float(x) - total for x in row]


def smooth(target, smoothing):
    """A share of the target spread over all classes."""
    return [(1 - smoothing) * float(t) + smoothing / len(target) for t in target]


def cross_entropy(row, target):
    """-sum(target * log(softmax(x))) of two lists."""
    return -math.fsum(t * p for t, p in zip(target, log_softmax(row), strict=True))


def binary_cross_entropy(x, label):
    """-(y * log(p) + (1 - y) * log(1 - p)) with p = 1 / (1 + exp(-x)), of two numbers."""
    return label * math.log1p(math.exp(-x)) + (1 - label) * (x + math.log1p(math.exp(-x)))


# Batch normalisation


def batch_norm(rows, eps):
    """Normalised rows, means and biased variances of (M, C)."""
    out, means, variances = np.empty(rows.shape), [], []
    for channel in range(rows.shape[1]):
        values = [float(value) for value in rows[:, channel]]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        out[:, channel] = [(value - mean) / math.sqrt(variance + eps) for value in values]
        means.append(mean)
        variances.append(variance)
    return out, np.array(means), np.array(variances)


def batch_norm_gradient(rows, d, eps):
    """The Jacobian, dy_j/dx_i = ((i == j) - 1/M - y_i y_j / M) / std, times d."""
    out, _, variances = batch_norm(rows, eps)
    count, channels = rows.shape
    gradient = np.zeros(rows.shape)
    for c in range(channels):
        for i in range(count):
            for j in range(count):
                slope = (i == j) - 1 / count - out[i, c] * out[j, c] / count
                gradient[i, c] += float(d[j, c]) * slope / math.sqrt(variances[c] + eps)
    return gradient


# Optimizers, one number at a time


def sgd(start, gradients, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """The parameter after all steps of `torch.optim.SGD`; a gradient None is no step."""
    p, velocity = float(start), None
    for gradient in gradients:
        if gradient is None:
            continue
        g = float(gradient) + weight_decay * p
        if momentum:
            velocity = g if velocity is None else momentum * velocity + g
            g = g + momentum * velocity if nesterov else velocity
        p -= lr * g
    return p


def adam(start, gradients, lr, betas, eps, weight_decay=0.0):
    """The parameter after all steps of `torch.optim.AdamW`; a gradient None is no step."""
    p, mean, square, t = float(start), 0.0, 0.0, 0
    for gradient in gradients:
        if gradient is None:
            continue
        t += 1
        p *= 1 - lr * weight_decay
        mean = betas[0] * mean + (1 - betas[0]) * float(gradient)
        square = betas[1] * square + (1 - betas[1]) * float(gradient) ** 2
        corrected = math.sqrt(square / (1 - betas[1] ** t))
        p -= lr * mean / (1 - betas[0] ** t) / (corrected + eps)
    return p
