"""Rules between settings of different sections.

Pure functions of a configuration whose single fields are sound. Each rule names the settings it reads, so
that it is left out when one of them is already known to be faulty.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.faults import Problem
from orchestrator.config.models import RunConfig
from orchestrator.config.yaml12 import KeyPath


def check_rules(config: RunConfig, faulty: Sequence[KeyPath], *, check_search: bool) -> list[Problem]:
    """Every rule between sections that the configuration breaks."""
    return []
