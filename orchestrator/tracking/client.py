"""A client of an MLflow store: opened quietly, its errors turned into ours, its server asked by HTTP.

MLflow is imported by what opens a store, since that takes a second.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import TrackingError
from orchestrator.tracking.base import UnavailableError, UnusableError
from orchestrator.tracking.database import check_database
from orchestrator.tracking.faults import CREDENTIALS, NO_SERVER, as_ours
from orchestrator.tracking.location import ENVIRONMENT, TrackingLocation, opened_uri
from orchestrator.tracking.moved import follow_folder

_ANSWER_S = 5.0
_LIBRARIES = ("mlflow", "alembic", "sqlalchemy")
_COMES_BACK = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 403, 407})


def open_client(place: TrackingLocation) -> Any:
    """An `MlflowClient` of a store, quiet and without telemetry; makes the folder of an SQLite file.

    Raises:
        TrackingError: Its database cannot be opened, which MLflow itself would try for minutes.
    """
    check_database(place)
    load_mlflow()
    from mlflow import MlflowClient

    if place.database is not None:
        place.database.parent.mkdir(parents=True, exist_ok=True)
        follow_folder(place)
    return MlflowClient(tracking_uri=opened_uri(place.uri))


def load_mlflow() -> None:
    """Import MLflow, quiet and without telemetry: it takes a second, or many on a busy machine."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.utils.rest_utils  # noqa: F401  with it all that a request needs

    _quiet()


def _quiet() -> None:
    """Keep the libraries' own accounts, tracebacks among them, to those who asked for our log.

    What they tell reaches the user as one line of ours. MLflow gives its logger a level and a handler when it is
    imported, so this comes after.
    """
    is_verbose = logging.getLogger("orchestrator").isEnabledFor(logging.INFO)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING if is_verbose else logging.CRITICAL)


@contextmanager
def door(uri: str) -> Iterator[None]:
    """Turn the errors of MLflow and of what is below it into ours."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        if type(error).__name__ == "RestException" and getattr(error, "error_code", "") == "INTERNAL_ERROR":
            # Somebody's JSON, a proxy's for one; MLflow has dropped the status that came with it.
            check_readable(TrackingLocation(uri=uri, artifact_root=None))
        raise as_ours(uri, error) from error


def check_reachable(place: TrackingLocation) -> None:
    """Ask a store for one experiment.

    Raises:
        TrackingError: It refuses; `UnavailableError`, one of its kinds, when it does not answer.
    """
    with door(place.uri):
        open_client(place).search_experiments(max_results=1)


def ask_server(place: TrackingLocation, method: str, path: str, **options: Any) -> Any:
    """One HTTP request with MLflow's own credentials and certificates, whatever the status of its answer.

    Raises:
        TrackingError: No answer came.
    """
    with door(place.uri):
        load_mlflow()
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        return http_request(
            get_default_host_creds(place.uri),
            path,
            method,
            max_retries=0,
            timeout=_ANSWER_S,
            raise_on_status=False,
            **options,
        )


def check_readable(place: TrackingLocation) -> None:
    """Have a server list an experiment, for the status of its answer, which MLflow's own errors may lack.

    Raises:
        TrackingError: It does not; the kind says whether it may later.
    """
    answer = ask_server(place, "GET", "/api/2.0/mlflow/experiments/search", params={"max_results": 1})
    judge_answer(place.uri, "reading", answer)


def judge_answer(uri: str, what: str, answer: Any) -> None:
    """Tell an MLflow server's answer (`requests.Response`) from one that will never do.

    Raises:
        TrackingError: It will not do; `UnavailableError` alone where it may later.
    """
    status = answer.status_code
    said = " ".join(answer.text.split())[:120]
    if status in _REFUSED:
        raise UnusableError(f"{uri} refuses {what} to this account (HTTP {status}); {CREDENTIALS}")
    if status >= 500 or status in _COMES_BACK:
        raise UnavailableError(f"{uri} cannot serve now (HTTP {status}: {said})")
    if status != 200:
        raise UnusableError(f"{uri} answers HTTP {status} to {what} ({said}): {NO_SERVER}")
    if not answer.text.lstrip().startswith("{"):
        raise UnusableError(f"{uri} answers with a page or text and no data ({said}): {NO_SERVER}")
