from .checks import check_cache as check_cache
from .checks import check_initial as check_initial
from .checks import check_ray as check_ray
from .coordinator import Coordinator as Coordinator
from .driver import SweepRequest as SweepRequest
from .driver import SweepStart as SweepStart
from .driver import check_resume as check_resume
from .driver import check_tracking as check_tracking
from .driver import delivery_of as delivery_of
from .driver import run_sweep as run_sweep
from .driver import tracking_root as tracking_root
from .labels import check_shards as check_shards
from .labels import check_survey as check_survey
from .labels import label_notes as label_notes

__all__ = [
    "Coordinator",
    "SweepRequest",
    "SweepStart",
    "check_cache",
    "check_initial",
    "check_ray",
    "check_resume",
    "check_shards",
    "check_survey",
    "check_tracking",
    "delivery_of",
    "label_notes",
    "run_sweep",
    "tracking_root",
]
