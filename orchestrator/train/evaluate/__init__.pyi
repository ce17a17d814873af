from .asynchronous import Evaluations as Evaluations
from .asynchronous import Evaluator as Evaluator
from .asynchronous import LateResult as LateResult
from .asynchronous import Snapshot as Snapshot
from .asynchronous import Weights as Weights
from .asynchronous import weights_of as weights_of
from .baselines import Baselines as Baselines
from .data_cache import DataCache as DataCache
from .evaluation import Evaluation as Evaluation
from .evaluation import ProbeData as ProbeData
from .evaluation import evaluate as evaluate
from .evaluation import measure_health as measure_health
from .evaluation import measure_signs as measure_signs
from .evaluation import ranked_encoder as ranked_encoder
from .evaluator import RayEvaluator as RayEvaluator
from .features import FeatureModel as FeatureModel
from .features import OwnModel as OwnModel
from .features import open_timm as open_timm
from .features import weights_digest as weights_digest
from .probing import EVALUATIONS as EVALUATIONS
from .probing import ProbeReport as ProbeReport
from .probing import run_evaluations as run_evaluations

__all__ = [
    "EVALUATIONS",
    "Baselines",
    "DataCache",
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "FeatureModel",
    "LateResult",
    "OwnModel",
    "ProbeData",
    "ProbeReport",
    "RayEvaluator",
    "Snapshot",
    "Weights",
    "evaluate",
    "measure_health",
    "measure_signs",
    "open_timm",
    "ranked_encoder",
    "run_evaluations",
    "weights_digest",
    "weights_of",
]
