"""Resuming in the middle of an epoch: seconds from an empty process's first call to the first batch, on a warm cache.

The shards lie in a bucket of a real S3 server and in the cache; each round is a new process that opens the shard set
and asks for the batch of a step it has never read. What Python takes to import the packages is given apart. Compared,
in the same process, with what a stream without a cursor has to do: read up to that step from the start.

    python benchmarks/resume.py          # about two minutes, needs the extra `s3-test`, writes results/resume-cpu.json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_common import photo, save

NUM_IMAGES, BATCH, STEP, ROUNDS, LIMIT_S = 3000, 64, 40, 5, 5.0


def round_of(uri: str, cache: str) -> None:
    """What a resumed worker does; prints the seconds as JSON."""
    begun = time.perf_counter()
    import torch

    from orchestrator.config.models import DataConfig, StorageConfig
    from orchestrator.data import BatchStream, ShardSet, open_shards

    imported = time.perf_counter()
    torch.set_num_threads(1)
    data = DataConfig(source=uri, cache_dir=cache, loader_threads=2)

    def stream(shards: ShardSet, step: int) -> BatchStream:
        return BatchStream(
            shards,
            data=data,
            image_size_px=224,
            batch_size=BATCH,
            rank=0,
            world_size=1,
            seed=0,
            start_step=step,
            total_steps=STEP + 8,
        )

    with stream(open_shards(uri, data, StorageConfig()), STEP) as resumed:
        batch = next(resumed)
        first = time.perf_counter()
    with stream(open_shards(uri, data, StorageConfig()), 0) as replayed:
        start = time.perf_counter()
        found = [next(replayed) for _ in range(STEP + 1)][-1]
        replayed_s = time.perf_counter() - start
    if found.keys != batch.keys or not torch.equal(found.images_uint8_BCHW, batch.images_uint8_BCHW):
        raise SystemExit("the resumed batch is another one")
    print(
        json.dumps({"import_s": imported - begun, "first_batch_s": first - imported, "replay_s": replayed_s})
    )


def fill(uri: str, folder: Path) -> None:
    """Pack photographs into the bucket and read them once, so that the cache is warm."""
    from orchestrator.config.models import DataConfig, StorageConfig
    from orchestrator.data import PackSettings, load_images, open_shards, pack_dataset

    images = folder / "images"
    images.mkdir()
    kinds = [photo(seed) for seed in range(40)]
    for number in range(NUM_IMAGES):
        (images / f"{number:05d}.jpg").write_bytes(kinds[number % 40])
    pack_dataset(str(images), uri, settings=PackSettings(shard_size_mb=16))
    data = DataConfig(source=uri, cache_dir=str(folder / "cache"))
    load_images(open_shards(uri, data, StorageConfig()), "train", NUM_IMAGES, image_size_px=16, threads=2)


def main() -> None:
    if len(sys.argv) > 2:
        round_of(*sys.argv[1:])
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from s3_server import run_s3_server

    with tempfile.TemporaryDirectory() as name, run_s3_server(Path(name)) as server:
        os.environ.update(server.environment)
        uri = server.make_bucket()
        fill(uri, Path(name))
        command = [sys.executable, __file__, uri, f"{name}/cache"]
        rounds = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(ROUNDS)
        ]
    medians = {key: round(statistics.median(found[key] for found in rounds), 3) for key in rounds[0]}
    if medians["first_batch_s"] > LIMIT_S:
        raise SystemExit(f"the first batch took {medians['first_batch_s']} s, more than {LIMIT_S}")
    results = {
        "batch_size": BATCH,
        "resumed_at_step": STEP,
        "seconds": medians,
        "times_faster_than_replaying": round(medians["replay_s"] / medians["first_batch_s"], 1),
    }
    save("resume", results, packages=("torch", "boto3"))


if __name__ == "__main__":
    main()
