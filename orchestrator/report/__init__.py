"""Room: what a sweep found, how sure it is and what it cost, in words, tables, plots and one page."""

from orchestrator.report.words.summary import Summary, summarize
from orchestrator.report.words.winner import recommend, trial_config
from orchestrator.report.write import load_sweep, log_preview, log_report, write_report

__all__ = [
    "Summary",
    "load_sweep",
    "log_preview",
    "log_report",
    "recommend",
    "summarize",
    "trial_config",
    "write_report",
]
