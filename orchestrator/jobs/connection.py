"""From an address to a connection: the head is looked at first, and Ray's client loaded once it has answered."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from orchestrator.cluster import find_token
from orchestrator.errors import ClusterError
from orchestrator.jobs.head import Head, check_version, head_url, inspect_head, is_loopback

if TYPE_CHECKING:
    from orchestrator.jobs.client import JobsClient


def connect(
    address: str, *, token_file: str | None = None, ca_file: str | None = None, allow_insecure: bool = False
) -> JobsClient:
    """Look at the cluster, then connect to its job server.

    Raises:
        ClusterError: Unreachable, a token missing or wrong, another Ray version, or a cluster without authentication
            while `allow_insecure` is False.
    """
    url = head_url(address)
    token = find_token(token_file)
    head = inspect_head(url, token, ca_file=ca_file)
    check_version(head, version("ray"))
    if head.open_to_anyone and not allow_insecure:
        raise ClusterError(
            f"{url} has no authentication: whoever reaches it can run code on it; start it with RAY_AUTH_MODE=token "
            "and a token (docs/cluster.md), or pass --allow-insecure if its network is closed"
        )
    from orchestrator.jobs.client import open_client  # here: Ray's client takes a second to load

    return open_client(head, token, ca_file=ca_file)


def warnings_of(head: Head) -> list[str]:
    """What is unsafe about talking to this head."""
    found = []
    if head.open_to_anyone:
        found.append(f"{head.url} has no authentication: whoever reaches it can run code on it")
    if head.url.startswith("http:") and not is_loopback(head.url):
        found.append(
            f"the token crosses the network to {head.url} unencrypted; use https, or "
            "`ssh -L 8265:localhost:8265 <head>` and --address http://127.0.0.1:8265"
        )
    return found
