"""The configuration: sections and their rules, YAML in and out, overrides, the search space, the reference.

See docs/architecture.md for its place and docs/configuration.md for every key.
"""

from orchestrator.config.load import (
    apply_overrides,
    default_config,
    dump,
    flatten,
    load_config,
    parse_config,
    to_data,
)
from orchestrator.config.models import RunConfig
from orchestrator.config.schema import explain, json_schema, reference_markdown
from orchestrator.config.space import (
    axis_value,
    first_seeds,
    grid_points,
    grid_size,
    most_seeds,
    pair_around,
    searched_keys,
)
from orchestrator.config.sweep_rules import has_teacher, reads_masks

__all__ = [
    "RunConfig",
    "apply_overrides",
    "axis_value",
    "default_config",
    "dump",
    "explain",
    "first_seeds",
    "flatten",
    "grid_points",
    "grid_size",
    "has_teacher",
    "json_schema",
    "load_config",
    "most_seeds",
    "pair_around",
    "parse_config",
    "reads_masks",
    "reference_markdown",
    "searched_keys",
    "to_data",
]
