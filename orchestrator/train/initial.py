"""Starting a run from a published checkpoint instead of untrained weights."""

from __future__ import annotations

import io
from pathlib import Path

from torch import nn

from jepa_core.interop import read_published
from jepa_core.sharding import load_whole
from jepa_core.step import TrainState
from orchestrator.config.models import StorageConfig
from orchestrator.errors import CheckpointError
from orchestrator.storage import open_store


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
