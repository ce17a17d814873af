"""Servers on this machine are not asked through a proxy."""

from __future__ import annotations

import os
from urllib.request import getproxies_environment

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def spare_loopback() -> None:
    """Where a proxy is set, add this machine to `no_proxy`, which every HTTP library reads, also in what is started.

    A proxy elsewhere cannot reach an S3 server, an MLflow server or a tunnel's end here.
    """
    if not getproxies_environment():
        return
    named = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
    hosts = dict.fromkeys(host.strip() for host in (*named, *_LOOPBACK))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(host for host in hosts if host)
