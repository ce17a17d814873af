"""An HTTP proxy on loopback that answers a share of requests as a bad network or a busy S3 does, and counts them all.

    with run_fault_proxy(endpoint_url, share=0.05) as proxy: ...

Faults are drawn by a seeded generator: 500 and 503, a reset, a stall, and a body that ends early. Also adds a latency
and bounds the rate. Run as a program (`python fault_proxy.py ENDPOINT LATENCY_S BYTES_PER_S`) it prints its port and
serves until it is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "reset", "stall", "truncate")
_COPY_BYTES = 2**18
_BUSY = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>made to fail</Message></Error>'


@dataclass
class FaultProxy:
    """What the proxy does and has done; `requests` counts by method, `faults` by kind."""

    target: tuple[str, int]
    share: float = 0.0
    kinds: Sequence[str] = FAULTS
    seed: int = 0
    stall_s: float = 30.0
    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    port: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.link_free_s = 0.0

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for_link(self, num_bytes: int) -> None:
        """Hold bytes back until the link that all connections share has room for them."""
        if not self.bytes_per_s:
            return
        with self.lock:
            self.link_free_s = max(self.link_free_s, time.monotonic()) + num_bytes / self.bytes_per_s
            wait_s = self.link_free_s - time.monotonic()
        time.sleep(max(0.0, wait_s))

    def draw(self, method: str, headers: dict[str, str]) -> str | None:
        """Count a request and say how it is to fail, if it is; kinds take turns, so that a short run meets all."""
        with self.lock:
            self.requests[method] += 1
            if len(self.headers) < 1000:
                self.headers.append(headers)
            if self.random.random() >= self.share:
                return None
            kind = self.kinds[self.faults.total() % len(self.kinds)]
            self.faults[kind] += 1
            return kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy
    upstream: http.client.HTTPConnection | None = None

    def log_message(self, format: str, *args: object) -> None:
        pass

    def forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        fault = self.proxy.draw(self.command, dict(self.headers))
        if self.proxy.latency_s:
            time.sleep(self.proxy.latency_s)
        if fault in ("500", "503"):
            text = _BUSY % (b"SlowDown" if fault == "503" else b"InternalError")
            self.send_response(int(fault))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)
        elif fault == "reset":
            self.break_off(hard=True)
        elif fault == "stall":
            self.proxy.stopped.wait(self.proxy.stall_s)
            self.break_off(hard=True)
        else:
            self.pass_on(body, is_cut=fault == "truncate")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def pass_on(self, body: bytes | None, *, is_cut: bool) -> None:
        if self.upstream is None:
            self.upstream = http.client.HTTPConnection(*self.proxy.target, timeout=60)
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            self.upstream.putheader(name, value)
        self.upstream.endheaders(body)
        answer = self.upstream.getresponse()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        left = int(answer.headers.get("Content-Length") or 0) // (2 if is_cut else 1)
        while left > 0 and (data := answer.read(min(left, _COPY_BYTES))):
            self.proxy.wait_for_link(len(data))
            self.wfile.write(data)
            left -= len(data)
        if is_cut:
            self.break_off(hard=False)
        else:
            answer.read()

    def break_off(self, *, hard: bool) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            if hard:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self.connection.shutdown(socket.SHUT_WR)
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        if self.upstream is not None:
            self.upstream.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no fault of the proxy."""


def serve(proxy: FaultProxy) -> _Server:
    """A server of this proxy; not running yet."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.port = server.server_address[1]
    return server


@contextlib.contextmanager
def run_fault_proxy(endpoint_url: str, **settings: object) -> Iterator[FaultProxy]:
    """A proxy in front of an endpoint, in threads of this process."""
    proxy = FaultProxy(target=_address(endpoint_url), **settings)
    with serve(proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.stopped.set()
            server.shutdown()
            thread.join()


def _address(endpoint_url: str) -> tuple[str, int]:
    parts = urlsplit(endpoint_url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    latency, rate = map(float, sys.argv[2:])
    program = FaultProxy(target=_address(sys.argv[1]), latency_s=latency, bytes_per_s=rate)
    with serve(program) as running:
        print(program.port, flush=True)
        running.serve_forever()
