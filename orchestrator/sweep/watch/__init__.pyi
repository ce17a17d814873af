from .follower import Follower as Follower
from .follower import Observer as Observer
from .status import SweepStatus as SweepStatus
from .status import event_line as event_line
from .status import list_sweeps as list_sweeps

__all__ = [
    "Follower",
    "Observer",
    "SweepStatus",
    "event_line",
    "list_sweeps",
]
