"""Checkpoints: what is saved comes back, and damage falls back to the one before."""

from pathlib import Path

import pytest
import torch

from orchestrator.config.models import StorageConfig
from orchestrator.errors import CheckpointError
from orchestrator.storage import Store, open_store
from orchestrator.train.loop.checkpoint import list_checkpoints, load_checkpoint, load_latest, save_checkpoint


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path), StorageConfig())


def _save(store: Store, step: int, *, keep: int = 3) -> str:
    tensors = {"w": torch.full((4, 3), float(step), dtype=torch.float64), "n": torch.tensor(step)}
    return save_checkpoint(store, step=step, tensors=tensors, meta={"note": f"step {step}"}, keep=keep)


def test_tensors_and_meta_come_back_exactly(store: Store) -> None:
    name = _save(store, 7)
    found = load_checkpoint(store, name)
    assert found.step == 7
    assert found.meta == {"note": "step 7"}
    assert torch.equal(found.tensors["w"], torch.full((4, 3), 7.0, dtype=torch.float64))
    assert found.tensors["n"].dtype == torch.int64


def test_only_the_newest_are_kept(store: Store, tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        _save(store, step, keep=2)
    assert list_checkpoints(store) == ["step-0000000011", "step-0000000010"]
    assert not list((tmp_path / "step-0000000001").glob("*"))


def test_a_damaged_later_one_does_not_crowd_out_what_is_written(store: Store, tmp_path: Path) -> None:
    path = tmp_path / _save(store, 20, keep=1) / "state.safetensors"
    path.write_bytes(b"damaged")
    _save(store, 10, keep=1)
    found = load_latest(store)
    assert found is not None
    assert found.step == 10


def test_weights_that_a_kill_left_without_a_manifest_are_deleted(store: Store, tmp_path: Path) -> None:
    (tmp_path / _save(store, 1) / "manifest.json").unlink()
    _save(store, 2)
    assert not list((tmp_path / "step-0000000001").glob("*"))


@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damage_to_the_newest_falls_back_to_the_one_before(
    store: Store, tmp_path: Path, file: str, damage: str
) -> None:
    _save(store, 1)
    path = tmp_path / _save(store, 2) / file
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    found = load_latest(store)
    assert found is not None
    assert found.step == 1


def test_every_single_bit_flip_is_noticed(store: Store, tmp_path: Path) -> None:
    name = _save(store, 1)
    for file in ("state.safetensors", "manifest.json"):
        path = tmp_path / name / file
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            broken = bytearray(whole)
            broken[position] ^= 1 << (position % 8)
            path.write_bytes(broken)
            with pytest.raises(CheckpointError):
                load_checkpoint(store, name)
        path.write_bytes(whole)


def test_no_checkpoint_is_none(store: Store) -> None:
    assert load_latest(store) is None
