"""The state that a run begins with: untrained, or the weights of a published checkpoint."""

from __future__ import annotations

import io
from pathlib import Path

from torch import nn

from jepa_core.interop import read_published
from jepa_core.objectives import PixelStatistics
from jepa_core.sharding import load_whole
from jepa_core.step import TrainState, create_state
from orchestrator.config.models import RunConfig, StorageConfig
from orchestrator.errors import CheckpointError
from orchestrator.storage import open_store
from orchestrator.train.distributed import Rank


def new_state(config: RunConfig, total_steps: int, rank: Rank) -> TrainState:
    """The untrained state of a run: a function of the configuration and its seed."""
    return create_state(
        encoder=config.encoder,
        predictor=config.predictor,
        objective=config.objective,
        optimizer=config.optimizer,
        ema=config.ema,
        total_steps=total_steps,
        seed=config.train.seed,
        device=rank.device,
        precision=rank.precision,
        execution=config.execution,
        distributed=rank.world_size > 1,
        pixels=PixelStatistics(mean=config.data.mean, std=config.data.std),
    )


def load_initial(state: TrainState, uri: str, storage: StorageConfig) -> None:
    """Take over the weights of a published checkpoint: a file, or an object under `s3://`.

    A file without target encoder or without context encoder gives both the one that it has; without predictor, the
    untrained one stays.

    Raises:
        CheckpointError: The file is no published checkpoint, or its model is another one than the run's.
    """
    try:
        parts = read_published(io.BytesIO(_read(uri, storage)), name=uri)
    except ValueError as err:
        raise CheckpointError(f"train.init_from: {err}") from err
    for encoder, other in (("context_encoder", "target_encoder"), ("target_encoder", "context_encoder")):
        if encoder not in parts:
            parts[encoder] = parts[other]
    for part, weights in parts.items():
        module = getattr(state.objective, part, None)
        if not isinstance(module, nn.Module):
            continue
        try:
            load_whole(module, weights)
        except RuntimeError as err:
            section = "predictor" if part == "predictor" else "encoder"
            raise CheckpointError(
                f"train.init_from: {uri} holds another {part} than {section}.* describes; set its width, depth, "
                f"num_heads and patch size as there ({err})"
            ) from err


def _read(uri: str, storage: StorageConfig) -> bytes:
    folder, _, name = (
        uri.rpartition("/") if "://" in uri else (str(Path(uri).resolve().parent), "", Path(uri).name)
    )
    return open_store(folder, storage).read(name)
