from .best import TakenCheckpoint as TakenCheckpoint
from .best import first_best_step as first_best_step
from .best import take_checkpoint as take_checkpoint
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import load_checkpoint as load_checkpoint
from .checkpoint import load_latest as load_latest
from .plan import RunPlan as RunPlan
from .plan import plan_run as plan_run
from .preemption import PreemptionNotice as PreemptionNotice
from .preemption import draining_nodes as draining_nodes
from .preemption import notice_of_this_group as notice_of_this_group
from .run import Run as Run

__all__ = [
    "Checkpoint",
    "PreemptionNotice",
    "Run",
    "RunPlan",
    "TakenCheckpoint",
    "draining_nodes",
    "first_best_step",
    "load_checkpoint",
    "load_latest",
    "notice_of_this_group",
    "plan_run",
    "take_checkpoint",
]
