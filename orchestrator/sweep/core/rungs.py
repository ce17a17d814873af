"""Where trials are compared, and asynchronous successive halving as a pure function of what the rungs have seen.

Rungs are counted in images seen. In the stopping variant, which is here, a trial is decided on once at each rung and
never waits: it goes on when its value is among the best 1 / reduction_factor of the values recorded there, itself
included; the first to arrive always goes on. `promotion` has the variant in which trials wait.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), Algorithm 2; stopping as in the
schedulers of Ray Tune and Syne Tune.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.config import first_seeds
from orchestrator.config.models import PROPOSING, AshaConfig, PbtConfig, RunConfig, SweepConfig
from orchestrator.protocol.reports import Decision


def rungs_images(asha: AshaConfig | None, total_images: int, *, bracket: int = 0) -> tuple[int, ...]:
    """The rungs below the full length, in images: first_rung * reduction_factor ** k, from the bracket's number on."""
    if asha is None:
        return ()
    rungs, rung = [], asha.first_rung_images
    while rung < total_images:
        rungs.append(rung)
        rung *= asha.reduction_factor
    return tuple(rungs[bracket:])


def generation_ends(pbt: PbtConfig | None, total_images: int) -> tuple[int, ...]:
    """Where a population's generations end, in images; the last ends with training, decides nothing and is left out."""
    return () if pbt is None else tuple(range(pbt.every_images, total_images, pbt.every_images))


def promotes(sweep: SweepConfig) -> bool:
    """Whether trials wait at rungs until the best of them go on, as against being decided on as they come."""
    if sweep.asha is None:
        return False
    if sweep.asha.variant is None:
        return bool(sweep.points) or sweep.search not in PROPOSING
    return sweep.asha.variant == "promotion"


def trial_rungs(config: RunConfig, *, index: int, seed: int) -> tuple[int, ...]:
    """The rungs of a trial by its number and seed; under `sweep.pbt` the ends of its generations.

    What `sweep.seeds: auto` repeats has none: it measures how much seeds matter, and stopping the unlucky
    would bend that.
    """
    asha = config.sweep.asha
    if seed not in first_seeds(config.sweep):
        return ()
    if config.sweep.pbt is not None:
        return generation_ends(config.sweep.pbt, config.train.images)
    return rungs_images(asha, config.train.images, bracket=bracket_of(asha, index))


def bracket_of(asha: AshaConfig | None, index: int) -> int:
    """The bracket of a trial by its number in the sweep; trials are compared within their bracket alone.

    Source: Li et al., "Hyperband" (JMLR 2018), whose brackets differ in how early they begin to stop trials.
    Deviates: all brackets get as many trials, since a sweep's number of trials is given.
    """
    return 0 if asha is None else index % asha.brackets


def decide_at_rung(
    asha: AshaConfig, *, rung: int, trial_id: str, value: float, recorded: Mapping[str, float]
) -> Decision:
    """Whether a trial goes on from a rung.

    `recorded` maps the trials that reached this rung before to their values; higher is better, NaN is worst.
    """
    values = {**recorded, trial_id: value}
    if math.isnan(value):
        return Decision(action="stop", reason=f"the ranking metric is NaN at {rung:,} images")
    ranked = sorted((_worst_if_nan(other) for other in values.values()), reverse=True)
    survivors = max(1, math.floor(len(ranked) / asha.reduction_factor))
    cutoff = ranked[survivors - 1]
    if value >= cutoff:
        return Decision()
    return Decision(
        action="stop",
        reason=f"{value:.2f} at {rung:,} images is below the cut of {cutoff:.2f} "
        f"(best {survivors} of {len(ranked)} go on)",
    )


def _worst_if_nan(value: float) -> float:
    return -math.inf if math.isnan(value) else value
