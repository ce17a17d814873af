"""A cluster's head as a client sees it: its address, whether it asks for a token, and its Ray version.

Looked at with short time limits before anything is sent, since Ray's own client waits minutes for a host that does not
answer and names no remedy.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.cluster import Token
from orchestrator.errors import ClusterError
from orchestrator.storage import OPEN_FILES_REMEDY, find_open_files_limit

DEFAULT_PORT = 8265
_TIME_LIMIT_S = 10.0
_MAX_ANSWER_BYTES = 1 << 20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the head says of itself; `auth_mode` is `token`, `k8s`, `disabled` or `unknown` (a Ray too old for it)."""

    url: str
    ray_version: str
    auth_mode: str

    @property
    def open_to_anyone(self) -> bool:
        """Whether it obeys anybody who can reach it."""
        return self.auth_mode in ("disabled", "unknown")


def head_url(address: str) -> str:
    """`http(s)://host:port` of a head's dashboard; a bare host gets Ray's port 8265.

    Raises:
        ClusterError: Another scheme, credentials in the address, or no host.
    """
    text = address.strip()
    match = _SCHEME.match(text)
    scheme = match.group(1).lower() if match else "http"
    if scheme == "ray":
        raise ClusterError(
            f"{address}: that is the address of a Ray Client; jobs go to the head's dashboard, "
            f"http://<head>:{DEFAULT_PORT}"
        )
    if scheme not in ("http", "https"):
        raise ClusterError(f"{address}: must be http:// or https://; write http://<head>:{DEFAULT_PORT}")
    try:
        parts = urlsplit(text if match else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as err:
        raise ClusterError(f"{address}: not an address ({err}); write http://<head>:{DEFAULT_PORT}") from None
    if parts.username or parts.password:
        raise ClusterError("the address must not hold credentials; pass the token with --token-file")
    if not host or text == "auto" or parts.query or parts.fragment:
        raise ClusterError(f"{address}: names no host; write http://<head>:{DEFAULT_PORT}")
    host = f"[{host}]" if ":" in host else host
    if port is None:
        port = DEFAULT_PORT if scheme == "http" else 443
    return f"{scheme}://{host}:{port}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine alone."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def inspect_head(url: str, token: Token | None, *, ca_file: str | None = None) -> Head:
    """Ask the head for its authentication mode and, with the token, its version.

    Raises:
        ClusterError: It does not answer, is not a Ray head, or refuses the token.
    """
    context = _tls(url, ca_file)
    status, body = _get(f"{url}/api/authentication_mode", None, context)
    mode = "unknown"
    if status == 200:
        mode = _field(url, body, "authentication_mode")
    status, body = _get(f"{url}/api/version", token, context)
    if status == 401:
        raise ClusterError(
            f"{url} asks for a token and none was found; put the cluster's token into ~/.ray/auth_token "
            "(mode 600), set RAY_AUTH_TOKEN_PATH, or pass --token-file"
        )
    if status == 403:
        source = token.source if token is not None else "no token"
        raise ClusterError(
            f"{url} refuses the token from {source}; ask the cluster's owner for the current one "
            "(on the head: `ray get-auth-token`)"
        )
    if status != 200:
        raise ClusterError(
            f"{url} answers {status} and is not the dashboard of a Ray head; give its address, "
            f"usually http://<head>:{DEFAULT_PORT}"
        )
    return Head(url=url, ray_version=_field(url, body, "ray_version"), auth_mode=mode)


def check_version(head: Head, client_version: str) -> None:
    """Refuse a cluster whose Ray differs in its major or minor version: the driver would not start there.

    Raises:
        ClusterError: They differ.
    """
    theirs, ours = head.ray_version.split(".")[:2], client_version.split(".")[:2]
    if theirs != ours:
        raise ClusterError(
            f"{head.url} runs Ray {head.ray_version} and this is Ray {client_version}: major and minor version must "
            f"agree; start the cluster from an image with ray=={'.'.join(ours)}.*, or install "
            f"ray=={head.ray_version} here"
        )


def _tls(url: str, ca_file: str | None) -> ssl.SSLContext | None:
    if not url.startswith("https"):
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as err:
        raise ClusterError(f"--ca-file {ca_file}: {err.strerror or err}; give a PEM file") from None


def _get(url: str, token: Token | None, context: ssl.SSLContext | None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token.value}"} if token is not None else {}
    request = urllib.request.Request(url, headers=headers)
    root = url.rsplit("/api/", 1)[0]
    try:
        with urllib.request.urlopen(request, timeout=_TIME_LIMIT_S, context=context) as answer:
            return answer.status, answer.read(_MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as err:
        return err.code, b""
    except (OSError, http.client.HTTPException) as err:
        limit = find_open_files_limit(err)
        if limit is not None:
            raise ClusterError(f"cannot reach {root} ({limit}); {OPEN_FILES_REMEDY}") from None
        reason = getattr(err, "reason", None) or err
        raise ClusterError(
            f"cannot reach {root}: {reason}; is the head running, and is its dashboard port forwarded to here "
            f"(`ssh -L {DEFAULT_PORT}:localhost:{DEFAULT_PORT} <head>`, or `kubectl port-forward svc/<head> "
            f"{DEFAULT_PORT}`)?"
        ) from None


def _field(url: str, body: bytes, name: str) -> str:
    try:
        return str(json.loads(body)[name])
    except (ValueError, KeyError, TypeError):
        raise ClusterError(
            f"{url} answers, but not as the dashboard of a Ray head; give its address, "
            f"usually http://<head>:{DEFAULT_PORT}"
        ) from None
