"""A TCP proxy on loopback that breaks connections: what a bad network does to an S3 client."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class FlakyProxy:
    """Forwards to `target`; the next `cuts` connections are cut after so many bytes of the answer."""

    target: tuple[str, int]
    cuts: list[int] = field(default_factory=list)
    num_connections: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take_cut(self) -> int | None:
        with self.lock:
            self.num_connections += 1
            return self.cuts.pop(0) if self.cuts else None


@contextlib.contextmanager
def run_flaky_proxy(endpoint_url: str) -> Iterator[FlakyProxy]:
    """A proxy in front of an endpoint, in threads of this process."""
    parts = urlsplit(endpoint_url)
    assert parts.hostname
    assert parts.port
    proxy = FlakyProxy(target=(parts.hostname, parts.port))
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy.port = server.getsockname()[1]
        threading.Thread(target=_accept, args=(server, proxy), daemon=True).start()
        yield proxy


def _accept(server: socket.socket, proxy: FlakyProxy) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        upstream = socket.create_connection(proxy.target)
        threading.Thread(target=_forward, args=(client, upstream, None), daemon=True).start()
        threading.Thread(target=_forward, args=(upstream, client, proxy.take_cut()), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    """Copy until the end, or until `limit` bytes are through; then close both."""
    left = limit if limit is not None else 2**62
    with contextlib.suppress(OSError):
        while left > 0 and (data := source.recv(65536)):
            sink.sendall(data[:left])
            left -= len(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        if limit is not None:
            end.close()
