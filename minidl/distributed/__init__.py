"""Several processes that train one model, and what they tell each other."""

from minidl.distributed.communicator import OnAllRanks, RanksDifferError, World
from minidl.distributed.launcher import world

__all__ = ["OnAllRanks", "RanksDifferError", "World", "world"]
