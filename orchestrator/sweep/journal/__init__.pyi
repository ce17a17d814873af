from .folders import Runs as Runs
from .lease import driver_lease as driver_lease
from .lease import driver_text as driver_text
from .log import Journal as Journal
from .log import read_events as read_events
from .requests import Request as Request
from .requests import leave_request as leave_request
from .requests import take_request as take_request
from .resume import check_same_sweep as check_same_sweep
from .resume import check_something_left as check_something_left
from .resume import deciding_differences as deciding_differences
from .resume import earlier_configs as earlier_configs
from .resume import read_sweep as read_sweep
from .resume import stopped_trial_id_of as stopped_trial_id_of
from .resume import trial_id_of as trial_id_of

__all__ = [
    "Journal",
    "Request",
    "Runs",
    "check_same_sweep",
    "check_something_left",
    "deciding_differences",
    "driver_lease",
    "driver_text",
    "earlier_configs",
    "leave_request",
    "read_events",
    "read_sweep",
    "stopped_trial_id_of",
    "take_request",
    "trial_id_of",
]
