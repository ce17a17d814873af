"""A thousand damaged checkpoints: none is loaded in silence, none runs code, and the one before it is found."""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from orchestrator.errors import CheckpointError
from orchestrator.storage import open_store
from orchestrator.train.loop.checkpoint import load_checkpoint, load_latest, save_checkpoint

NUM_MUTATIONS = 1000
WATCHED = {"pickle.find_class", "exec", "os.system", "subprocess.Popen", "marshal.loads"}
_seen: list[str] = []
_listening = False


def _hook(event: str, arguments: object) -> None:
    if _listening and event in WATCHED:
        _seen.append(event)


sys.addaudithook(_hook)


@contextmanager
def listening() -> Iterator[list[str]]:
    """What is run or unpickled inside the block; importing a module counts, so warm up first."""
    global _listening
    _seen.clear()
    _listening = True
    yield _seen
    _listening = False


def mutate(file: Path, chance: random.Random) -> str:
    """Damage a file in one of the ways disks and people do."""
    data = bytearray(file.read_bytes())
    kind = chance.choice(["flip", "flip", "flip", "cut", "zero", "grow", "empty", "pickle", "missing"])
    if kind == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[chance.randrange(len(data)) :]
    elif kind == "zero":
        start = chance.randrange(len(data))
        data[start : start + 16] = bytes(len(data[start : start + 16]))
        data[start] ^= 1  # a stretch of zeros would be no change
    elif kind == "grow":
        data += b"\0"
    elif kind == "empty":
        data.clear()
    elif kind == "pickle":
        data[:] = b"cposix\nsystem\n(S'touch canary'\ntR."
    if kind == "missing":
        file.unlink()
    else:
        file.write_bytes(bytes(data))
    return kind


def refuse_one(folder: Path, chance: random.Random) -> str:
    """Damage the newest of two checkpoints in a copy; it is refused, and the older one found."""
    damaged = folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(folder / "sound", damaged)
    file = chance.choice(["manifest.json", "state.safetensors"])
    kind = mutate(damaged / "step-0000000002" / file, chance)
    store = open_store(str(damaged))
    with pytest.raises(CheckpointError):
        load_checkpoint(store, "step-0000000002")
    found = load_latest(store)
    assert found is not None
    assert found.step == 1
    return kind


def test_a_thousand_damaged_checkpoints_are_all_refused_and_the_older_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, chance = open_store(str(tmp_path / "sound")), random.Random(0)
    for step in (1, 2):
        tensors = {"weights": torch.arange(64.0) * step}
        save_checkpoint(store, step=step, tensors=tensors, meta={"report": {"images": step}}, keep=2)
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32"):
        json.loads("[]".encode(encoding))  # importing a codec on first use counts as running code
    refuse_one(tmp_path, chance)
    with listening() as executed:
        kinds = {refuse_one(tmp_path, chance) for _ in range(NUM_MUTATIONS)}
    assert kinds == {"flip", "cut", "zero", "grow", "empty", "pickle", "missing"}
    assert executed == []
    assert not (tmp_path / "canary").exists()
