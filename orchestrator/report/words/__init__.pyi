from .scale import plan_scale as plan_scale
from .sentences import answers as answers
from .sentences import figure_text as figure_text
from .summary import Summary as Summary
from .summary import summarize as summarize
from .terms import MASKS as MASKS
from .verdict import GeometryResult as GeometryResult
from .verdict import StoppedResult as StoppedResult
from .winner import MODEL_FOLDER as MODEL_FOLDER
from .winner import model_files as model_files
from .winner import recommend as recommend
from .winner import recommended_checkpoint as recommended_checkpoint
from .winner import trial_config as trial_config

__all__ = [
    "MASKS",
    "MODEL_FOLDER",
    "GeometryResult",
    "StoppedResult",
    "Summary",
    "answers",
    "figure_text",
    "model_files",
    "plan_scale",
    "recommend",
    "recommended_checkpoint",
    "summarize",
    "trial_config",
]
