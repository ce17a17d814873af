"""Room: what a sweep found, how sure it is and what it cost, in words, tables, plots and one page."""

from orchestrator.report.words import Summary, recommend, summarize, trial_config
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
