"""Does a sweep say the same under other seeds? The verdict of each three of its seeds, read off its journal.

    python benchmarks/seed_triples.py benchmarks/results/sweeps/masks-nine-seeds.jsonl.gz ...

Prints, for each three seeds in order and for all, the mean of every geometry, whether it is tied with the highest, and
the spread of a run over seeds. Exits with 1 where a geometry that is beaten under one is the highest under another.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.config import parse_config
from orchestrator.protocol.events import parse
from orchestrator.report.statistics.noise import difference_noise, estimate_noise
from orchestrator.report.statistics.trials import TrialSummary, group_geometries, trial_summaries
from orchestrator.report.words.verdict import GeometryResult, judge
from orchestrator.sweep.core.fold import fold_events

_SEEDS_A_VERDICT = 3


def read_trials(path: Path) -> tuple[list[TrialSummary], str]:
    """The trials of a journal, one event a line, and the metric that ranks them."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        record = fold_events([parse(json.loads(line), where=path.name) for line in lines])
    config = parse_config(record.config_text, source=str(path))
    return trial_summaries(config, record), config.sweep.metric


def show(trials: Sequence[TrialSummary], metric: str) -> tuple[GeometryResult, ...]:
    """Print the ranking of these trials."""
    seeds = sorted({trial.seed for trial in trials})
    geometries = group_geometries(trials)
    alone, paired = estimate_noise(geometries), difference_noise(geometries)
    print(
        f"seeds {', '.join(map(str, seeds))}: spread of a run {alone.seed_sd:.2f}, paired {paired.seed_sd:.2f}"
    )
    ranking = judge(trials, metric).ranking
    for result in ranking:
        outcome = (
            "tied" if result.tied else f"beaten: {result.behind_best:.1f} behind, {result.margin:.1f} needed"
        )
        print(f"  {result.mean:.1f} ({result.interval.bounds()})  {result.name}  {outcome}")
    return ranking


def main() -> int:
    """Print the verdicts of the journals that are named; 1 where they contradict each other."""
    highest, beaten = set(), set()
    for name in sys.argv[1:]:
        trials, metric = read_trials(Path(name))
        seeds = sorted({trial.seed for trial in trials})
        for start in range(0, len(seeds), _SEEDS_A_VERDICT):
            chosen = seeds[start : start + _SEEDS_A_VERDICT]
            ranking = show([trial for trial in trials if trial.seed in chosen], metric)
            highest.add(ranking[0].name)
            beaten |= {result.name for result in ranking if not result.tied}
        if len(seeds) > _SEEDS_A_VERDICT:
            show(trials, metric)
    contradicted = highest & beaten
    print(f"beaten under one three and highest under another: {', '.join(sorted(contradicted)) or 'none'}")
    return 1 if contradicted else 0


if __name__ == "__main__":
    sys.exit(main())
