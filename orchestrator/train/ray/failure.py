"""A failure in one line, without loading what failed: for the driver and the coordinator as for the workers."""

from __future__ import annotations

from orchestrator.errors import OrchestratorError


def error_text(error: BaseException) -> str:
    """A failure in one line: our own errors as they are, others with their type.

    Of one that came from another process, what happened there, and not Ray's account of how it travelled.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return error_text(cause)
    if isinstance(error, OrchestratorError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
