"""What another process may ask of a running sweep: a small object in the sweep's folder that its driver looks for.

The driver alone writes the journal; whoever wants it to pause or to cancel leaves a request, on a disk and on S3 alike.
"""

from __future__ import annotations

import json
from typing import Literal, get_args

from orchestrator.errors import StorageError
from orchestrator.storage import Store

Request = Literal["pause", "cancel"]
_KEY = "request.json"


def leave_request(store: Store, request: Request) -> None:
    """Ask the driver of the sweep whose folder is `store`; the newest request stands."""
    store.write(_KEY, json.dumps({"request": request}).encode())


def take_request(store: Store) -> Request | None:
    """What is asked, taken off; None when nothing is, nothing that is known, or the store does not answer now."""
    try:
        request = json.loads(store.read(_KEY)).get("request")
        store.delete(_KEY)
    except StorageError:
        return None
    except (ValueError, AttributeError):
        store.delete(_KEY)
        return None
    return request if request in get_args(Request) else None
