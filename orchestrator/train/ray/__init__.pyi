from .client import ActorClient as ActorClient
from .client import SlotCalls as SlotCalls
from .failure import error_text as error_text
from .launch import ACCELERATOR_PREFIX as ACCELERATOR_PREFIX
from .launch import HEALTH_CHECK_INTERVAL_S as HEALTH_CHECK_INTERVAL_S
from .launch import NoRoomError as NoRoomError
from .launch import TrialResources as TrialResources
from .launch import fit_slot as fit_slot

__all__ = [
    "ACCELERATOR_PREFIX",
    "HEALTH_CHECK_INTERVAL_S",
    "ActorClient",
    "NoRoomError",
    "SlotCalls",
    "TrialResources",
    "error_text",
    "fit_slot",
]
