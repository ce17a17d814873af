"""Shards made to run code: every way in that WebDataset knows, tried on every way we read."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_data import data_config, image_bytes, open_stream, write_tar

from orchestrator.data import Manifest, ShardInfo, load_images, pack_dataset, prepare_data, verify_shards
from orchestrator.data.pack.write import secure_webdataset
from orchestrator.errors import OrchestratorError
from orchestrator.storage import LocalStore


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def armed(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of shards with a canary in every member that a decoder might run, and the file it would touch."""
    canary, saved = tmp_path / "canary", io.BytesIO()
    torch.save(Canary(canary), saved)
    armed_bytes = {"pkl": pickle.dumps(Canary(canary)), "pth": saved.getvalue()}
    for split in ("train", "val"):
        members = []
        for number in range(12):
            key = f"{number:03d}"
            members += [(f"{key}.png", image_bytes(number)), (f"{key}.cls", str(number % 2).encode())]
            for extension in ("pyd", "pickle", "pkl"):
                members.append((f"{key}.{extension}", armed_bytes["pkl"]))
            members += [(f"{key}.pth", armed_bytes["pth"]), (f"{key}.npy", armed_bytes["pkl"])]
            members.append((f"{key}.txt", f"pipe:touch {canary}".encode()))
        members += [(f"../../{canary.name}", b"x"), (str(canary), b"x"), (f"x/../../{canary.name}.png", b"x")]
        write_tar(tmp_path / "wds" / f"{split}.tar", members)
    return tmp_path / "wds", canary


def test_nothing_in_a_shard_is_run_or_written_by_any_way_of_reading(
    armed: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, canary = armed
    before = sorted(tmp_path.rglob("*"))
    config = data_config(folder, tmp_path / "cache")
    shards = prepare_data(config)
    with open_stream(shards, config) as stream:
        list(stream)
    assert len(load_images(shards, "test", 100, image_size_px=8).keys) == 12
    assert verify_shards(shards, decode=True).faults == ()
    pack_dataset(str(folder), str(tmp_path / "packed"), data=config.data)
    assert not canary.exists()
    kept = {tmp_path / "cache", tmp_path / "packed"}
    added = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert all(kept & {path, *path.parents} for path in added)


def test_packing_shards_anew_leaves_the_armed_members_behind(
    armed: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, _ = armed
    pack_dataset(str(folder), str(tmp_path / "packed"), data=data_config(folder, tmp_path / "cache").data)
    packed = b"".join(path.read_bytes() for path in (tmp_path / "packed").glob("*.tar"))
    assert b"touch" not in packed
    assert b".pkl" not in packed


@pytest.mark.parametrize(
    "source", ["pipe:touch {}", "pipe:touch {} #.tar", "pipe:touch {} #{{0..3}}.tar", "exec:{}"]
)
def test_a_source_that_names_a_command_is_refused(source: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with pytest.raises(OrchestratorError):
        prepare_data(data_config(source.format(canary), tmp_path / "cache"))
    assert not canary.exists()


def test_webdataset_without_its_switches_is_refused() -> None:
    code = (
        "import os; os.environ['WDS_SECURE'] = '0'; import webdataset\n"
        "from orchestrator.data.pack.write import secure_webdataset; secure_webdataset()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "WDS_SECURE=1" in done.stderr
    assert secure_webdataset().utils.enforce_security


def test_a_manifest_cannot_name_a_shard_outside_its_store(tmp_path: Path) -> None:
    write_tar(tmp_path / "secret.tar", [("a.png", image_bytes(0))])
    info = ShardInfo(name="../secret.tar", split="train", num_samples=1, size_bytes=10240, sha256="0" * 64)
    LocalStore(str(tmp_path / "set")).write("manifest.json", Manifest(shards=(info,)).dump())
    config = data_config(tmp_path / "set", tmp_path / "cache")
    with pytest.raises(OrchestratorError, match="not a key"):
        next(open_stream(prepare_data(config), config))
