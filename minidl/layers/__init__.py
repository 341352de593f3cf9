"""Layers, and the containers that hold them."""

from minidl.layers.activation import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from minidl.layers.convolution import Conv2D
from minidl.layers.dense import Dense
from minidl.layers.module import Buffer, Layer, Module, Parameter, new_parameter
from minidl.layers.normalization import BatchNorm
from minidl.layers.pooling import AvgPool, GlobalAvgPool, MaxPool
from minidl.layers.regularization import Dropout
from minidl.layers.sequential import Sequential
from minidl.layers.shape import Flatten

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Buffer",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "LeakyReLU",
    "MaxPool",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "new_parameter",
]
