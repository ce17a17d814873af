from . import generations as generations
from . import promotion as promotion
from .budget import BUDGET_REASON as BUDGET_REASON
from .budget import SweepBudget as SweepBudget
from .budget import uncapped as uncapped
from .fold import apply as apply
from .fold import fold_events as fold_events
from .generations import is_decided as is_decided
from .generations import next_generation as next_generation
from .health import judge_health as judge_health
from .hours import full_length_hours as full_length_hours
from .ledger import Ledger as Ledger
from .ledger import ledger_of as ledger_of
from .lineage import Stretch as Stretch
from .lineage import schedule_of as schedule_of
from .lineage import schedule_text as schedule_text
from .noise import ASSUMED_SEED_SD_POINTS as ASSUMED_SEED_SD_POINTS
from .noise import CONFIDENCE as CONFIDENCE
from .noise import critical_range as critical_range
from .promotion import Verdict as Verdict
from .promotion import verdicts as verdicts
from .queue import TrialQueue as TrialQueue
from .record import STOPPED as STOPPED
from .record import SweepRecord as SweepRecord
from .record import TrialRecord as TrialRecord
from .rungs import bracket_of as bracket_of
from .rungs import decide_at_rung as decide_at_rung
from .rungs import generation_ends as generation_ends
from .rungs import promotes as promotes
from .rungs import rungs_images as rungs_images
from .rungs import trial_rungs as trial_rungs
from .seeds import next_seeds as next_seeds
from .seeds import unfinished_round as unfinished_round

__all__ = [
    "ASSUMED_SEED_SD_POINTS",
    "BUDGET_REASON",
    "CONFIDENCE",
    "STOPPED",
    "Ledger",
    "Stretch",
    "SweepBudget",
    "SweepRecord",
    "TrialQueue",
    "TrialRecord",
    "Verdict",
    "apply",
    "bracket_of",
    "critical_range",
    "decide_at_rung",
    "fold_events",
    "full_length_hours",
    "generation_ends",
    "generations",
    "is_decided",
    "judge_health",
    "ledger_of",
    "next_generation",
    "next_seeds",
    "promotes",
    "promotion",
    "rungs_images",
    "schedule_of",
    "schedule_text",
    "trial_rungs",
    "uncapped",
    "unfinished_round",
    "verdicts",
]
