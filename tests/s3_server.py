"""A real S3 server for tests: SeaweedFS on loopback, on free ports, stopped with its whole process group."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.config import Config

START_LIMIT_S = 60.0
_GRPC_DISTANCE = 10_000


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running server. `environment` holds what the standard boto3 chain needs to reach it as its owner."""

    endpoint_url: str
    access_key: str = "labkey12"
    secret_key: str = "labsecret1234567"
    reader_access_key: str = "readkey1"
    reader_secret_key: str = "readsecret123456"
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"max_attempts": 0},
                connect_timeout=2,
                read_timeout=20,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def make_bucket(self) -> str:
        """A new, empty bucket; returns its `s3://` URI."""
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return f"s3://{bucket}"


def weed_binary() -> str:
    """The server's binary, from the `s3-test` extra."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "no `weed` binary: install the extra `s3-test`"
    return found


@contextlib.contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    """Start a server that keeps its data below `folder`, and stop it when the block ends."""
    server = S3Server(endpoint_url="", log=folder / "weed.log")
    last: BaseException | None = None
    for _ in range(3):  # another process may take a port between the search and the start
        ports = free_ports(5)
        server = S3Server(endpoint_url=f"http://127.0.0.1:{ports[0]}", log=folder / "weed.log")
        process = _start(server, folder, ports)
        try:
            _wait_until_ready(server, process)
        except RuntimeError as err:
            last = err
            _stop(process)
            continue
        try:
            yield server
        finally:
            _stop(process)
        return
    raise RuntimeError(f"the S3 server does not start: {server.log.read_text()[-2000:]}") from last


def free_ports(count: int) -> list[int]:
    """Ports that are free now, each with its gRPC twin 10,000 above."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1] % 20_000 + 20_000
        if port not in found and all(map(_is_free, (port, port + _GRPC_DISTANCE))):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _start(server: S3Server, folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    data = folder / uuid.uuid4().hex
    data.mkdir(parents=True)
    identities = [
        {
            "name": "lab",
            "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": server.reader_access_key, "secretKey": server.reader_secret_key}],
            "actions": ["Read", "List"],
        },
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    command = [
        weed_binary(),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        f"-s3.port={ports[0]}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        f"-master.port={ports[1]}",
        f"-volume.port={ports[2]}",
        f"-filer.port={ports[3]}",
        f"-admin.port={ports[4]}",
        "-volume.preStopSeconds=0",
        "-filer.maxMB=8",
    ]
    with server.log.open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    client = server.client()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with code {process.returncode}")
        try:
            client.list_buckets()
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"1")
            return
        except Exception:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server was not ready within {START_LIMIT_S:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """At once: what it holds is thrown away, and it would take ten seconds to end by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
