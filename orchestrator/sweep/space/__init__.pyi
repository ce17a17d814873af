from .points import SweepPlan as SweepPlan
from .points import TrialPlan as TrialPlan
from .points import config_at as config_at
from .points import even_points as even_points
from .points import listed_point as listed_point
from .points import make_trial as make_trial
from .points import plan_sweep as plan_sweep
from .points import point_from_units as point_from_units
from .points import point_name as point_name
from .points import point_of_fractions as point_of_fractions
from .units import units_of as units_of

__all__ = [
    "SweepPlan",
    "TrialPlan",
    "config_at",
    "even_points",
    "listed_point",
    "make_trial",
    "plan_sweep",
    "point_from_units",
    "point_name",
    "point_of_fractions",
    "units_of",
]
