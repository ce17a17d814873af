from .geometries import GeometryAudit as GeometryAudit
from .geometries import SweepAudit as SweepAudit
from .geometries import audit_sweep as audit_sweep
from .model_costs import ModelCosts as ModelCosts
from .model_costs import model_dims as model_dims
from .plan import describe_plan as describe_plan
from .plan import lag_of_sweep as lag_of_sweep
from .replay import replay_sweep as replay_sweep

__all__ = [
    "GeometryAudit",
    "ModelCosts",
    "SweepAudit",
    "audit_sweep",
    "describe_plan",
    "lag_of_sweep",
    "model_dims",
    "replay_sweep",
]
