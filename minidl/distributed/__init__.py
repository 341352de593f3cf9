"""Several processes that train one model, and what they tell each other."""

from minidl.distributed.communicator import Alone, OnAllRanks, RanksDifferError, World
from minidl.distributed.launcher import world

__all__ = ["Alone", "OnAllRanks", "RanksDifferError", "World", "world"]
