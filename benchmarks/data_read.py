"""Reading samples from local shards: our index and pread against `webdataset.WebDataset`, the same tars, in one run.

Nothing is decoded; every payload byte is touched (summed) by both. Samples/s/core from the CPU clock of all threads,
medians of rounds that take turns. Guarded by the physical limit: the same files read from beginning to end and touched.

    python benchmarks/data_read.py        # a minute or two, writes results/data_read-cpu.json

Once in memory (tmpfs) and once on disk, in the page cache: the kernel copies from the two at different speeds.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from data_common import check_limit, cpu_s_in_rounds, save

from orchestrator.config.models import DataConfig, StorageConfig
from orchestrator.data import Manifest, ShardInfo, open_shards
from orchestrator.data.format.shardset import SampleReader, ShardSet
from orchestrator.data.pack.write import secure_webdataset, tar_bytes
from orchestrator.data.read.order import GlobalOrder
from orchestrator.storage import LocalStore, hash_file

NUM_SHARDS, SHARD_SAMPLES, SAMPLE_BYTES, ROUNDS = 8, 250, 110_000, 11
_BLOCK_BYTES = 2**20


def touched(data: bytes | memoryview) -> int:
    """A checksum that needs every byte."""
    return int(np.frombuffer(data, np.uint8)[: len(data) // 8 * 8].view(np.uint64).sum())


def make_shards(folder: Path) -> ShardSet:
    """Shards of random bytes called JPEGs, with a class each."""
    drawn, infos = np.random.default_rng(0), []
    for shard in range(NUM_SHARDS):
        samples = [
            (f"{shard:03d}-{number:04d}", {"jpg": drawn.bytes(SAMPLE_BYTES), "cls": b"7"})
            for number in range(SHARD_SAMPLES)
        ]
        path = folder / f"train-{shard:06d}.tar"
        path.write_bytes(tar_bytes(samples))
        size_bytes, sha256 = path.stat().st_size, hash_file(path)
        infos.append(
            ShardInfo(
                name=path.name, split="train", num_samples=SHARD_SAMPLES, size_bytes=size_bytes, sha256=sha256
            )
        )
    LocalStore(str(folder)).write("manifest.json", Manifest(shards=tuple(infos)).dump())
    data = DataConfig(source=str(folder), cache_dir=str(folder / "cache"))
    return open_shards(str(folder), data, StorageConfig())


def ours(reader: SampleReader, order: GlobalOrder) -> tuple[int, int]:
    """The path of `BatchStream` without decoding: an epoch in the shuffled order."""
    count, total = 0, 0
    for step in range(order.num_samples // 50):
        _, ids = order.locate(order.batch(step, 50))
        for sample_id in ids.tolist():
            shard, member = reader.locate(sample_id)
            total += touched(reader.open(shard).sample(member).image)
            count += 1
    return count, total & (2**64 - 1)


def theirs(folder: Path) -> tuple[int, int]:
    """Its fastest plain use: no shuffle, no decoding."""
    webdataset = secure_webdataset()
    dataset = webdataset.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False)
    count, total = 0, 0
    for sample in dataset:
        total += touched(sample["jpg"])
        count += 1
    return count, total & (2**64 - 1)


def sequential(folder: Path) -> None:
    buffer = bytearray(_BLOCK_BYTES)
    for path in sorted(folder.glob("*.tar")):
        descriptor = os.open(path, os.O_RDONLY)
        while count := os.readv(descriptor, [buffer]):
            touched(memoryview(buffer)[:count])
        os.close(descriptor)


def filesystem(folder: Path) -> str:
    """The kind of filesystem that a folder is on, by the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point))[1]


def measure(place: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        shards = make_shards(folder)
        reader = SampleReader(shards)
        sizes = [info.num_samples for info in shards.splits["train"]]
        order = GlobalOrder(sizes, seed=0, window_shards=4)
        if ours(reader, order) != theirs(folder):
            raise SystemExit("the two have not read the same bytes")
        calls = {
            "ours": lambda: ours(reader, order),
            "webdataset": lambda: theirs(folder),
            "sequential_read": lambda: sequential(folder),
        }
        total = sum(sizes)
        rates = {name: total / cpu_s for name, cpu_s in cpu_s_in_rounds(calls, ROUNDS).items()}
    check_limit("ours", rates["ours"], rates["sequential_read"], "reading the files from end to end")
    return {
        "filesystem": filesystem(Path(place)),
        "samples_per_s_per_core": {name: round(rate) for name, rate in rates.items()},
        "times_webdataset": round(rates["ours"] / rates["webdataset"], 2),
        "share_of_limit": round(rates["ours"] / rates["sequential_read"], 2),
    }


def main() -> None:
    places = {"memory": "/dev/shm", "disk": "/var/tmp"}
    results = {"sample_bytes": SAMPLE_BYTES, **{name: measure(place) for name, place in places.items()}}
    save("data_read", results, packages=("webdataset", "numpy"))


if __name__ == "__main__":
    main()
