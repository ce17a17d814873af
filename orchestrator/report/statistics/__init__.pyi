from .checkpoints import probe_curve as probe_curve
from .checkpoints import taken_json as taken_json
from .checkpoints import taken_text as taken_text
from .compute import training_flops_per_image as training_flops_per_image
from .findings import Findings as Findings
from .findings import accuracy_interval as accuracy_interval
from .findings import accuracy_mean as accuracy_mean
from .findings import explore as explore
from .gains import LabelGain as LabelGain
from .gains import MethodGain as MethodGain
from .gains import method_gains as method_gains
from .matched import BUDGETS as BUDGETS
from .matched import EQUIVALENT_POINTS as EQUIVALENT_POINTS
from .matched import MANY_SEEDS as MANY_SEEDS
from .matched import MatchedResult as MatchedResult
from .matched import compare as compare
from .matched import grouped_sentences as grouped_sentences
from .noise import DEFAULT_TEST_IMAGES as DEFAULT_TEST_IMAGES
from .noise import Noise as Noise
from .noise import accuracy_around as accuracy_around
from .noise import difference_error as difference_error
from .noise import difference_noise as difference_noise
from .noise import estimate_noise as estimate_noise
from .noise import interval_factor as interval_factor
from .noise import labels_of as labels_of
from .noise import mean_error as mean_error
from .noise import pool_noise as pool_noise
from .population import check_one_setting as check_one_setting
from .population import population_lines as population_lines
from .realised import ASPECT as ASPECT
from .realised import CONTEXT as CONTEXT
from .realised import REALISED as REALISED
from .realised import TARGET as TARGET
from .realised import TARGETS as TARGETS
from .realised import SurfaceAxis as SurfaceAxis
from .realised import mask_figures as mask_figures
from .surface import LEVEL as LEVEL
from .surface import Array as Array
from .trials import Geometry as Geometry
from .trials import TrialSummary as TrialSummary
from .trials import group_geometries as group_geometries
from .trials import trial_summaries as trial_summaries

__all__ = [
    "ASPECT",
    "BUDGETS",
    "CONTEXT",
    "DEFAULT_TEST_IMAGES",
    "EQUIVALENT_POINTS",
    "LEVEL",
    "MANY_SEEDS",
    "REALISED",
    "TARGET",
    "TARGETS",
    "Array",
    "Findings",
    "Geometry",
    "LabelGain",
    "MatchedResult",
    "MethodGain",
    "Noise",
    "SurfaceAxis",
    "TrialSummary",
    "accuracy_around",
    "accuracy_interval",
    "accuracy_mean",
    "check_one_setting",
    "compare",
    "difference_error",
    "difference_noise",
    "estimate_noise",
    "explore",
    "group_geometries",
    "grouped_sentences",
    "interval_factor",
    "labels_of",
    "mask_figures",
    "mean_error",
    "method_gains",
    "pool_noise",
    "population_lines",
    "probe_curve",
    "taken_json",
    "taken_text",
    "training_flops_per_image",
    "trial_summaries",
]
