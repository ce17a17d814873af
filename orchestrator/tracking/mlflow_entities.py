"""Data sets and models in MLflow's terms, through a client that `mlflow` opened."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.uris import mask_secrets
from orchestrator.tracking.base import Dataset

BEST_ALIAS = "best"
_LOADER = "orchestrator.tracking.encoder_model"
_DATA = "encoder"
_MODEL_FILE = "MLmodel"
_DIGEST_CHARACTERS, _NAME_CHARACTERS = 36, 450
_REFUSED_IN_NAMES = re.compile(r"[/:]+")


def log_dataset(client: Any, run_id: str, dataset: Dataset) -> None:
    """Add a data set to a run's inputs; MLflow keeps one of each (name, digest)."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    uri = mask_secrets(dataset.uri)
    entity = Entity(
        name=mask_secrets(dataset.name)[:_NAME_CHARACTERS],
        digest=(dataset.digest or "unknown")[:_DIGEST_CHARACTERS],
        source_type="s3" if uri.startswith("s3://") else "local",
        source=json.dumps({"uri": uri}),
        profile=json.dumps(dict(dataset.profile), default=str) if dataset.profile else None,
    )
    tags = [InputTag("mlflow.data.context", "pre-training and probes")]
    client.log_inputs(run_id, datasets=[DatasetInput(entity, tags)])


def register_encoder(client: Any, run_id: str, name: str, folder: str, tags: Mapping[str, str]) -> None:
    """Make a version of a registered model out of a run's folder, unless the run has one; alias `best`.

    The `MLmodel` file names a loader in this package, which reads safetensors: nothing is pickled, and
    `mlflow.pyfunc.load_model` runs no code out of the store.
    """
    from mlflow.exceptions import MlflowException

    model = _REFUSED_IN_NAMES.sub("-", name)
    try:
        client.create_registered_model(model, description="Target encoders that won mask sweeps of I-JEPA.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
    if not known:
        with tempfile.TemporaryDirectory() as directory:
            _write_model_file(Path(directory), run_id, folder)
            client.log_artifact(run_id, str(Path(directory) / _MODEL_FILE), folder)
        source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
        known = [client.create_model_version(model, source=source, run_id=run_id)]
    version = str(known[0].version)
    for key, value in tags.items():
        client.set_model_version_tag(model, version, key, value)
    client.set_registered_model_alias(model, BEST_ALIAS, version)


def _write_model_file(directory: Path, run_id: str, folder: str) -> None:
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the type hints of classes of MLflow's own
        from mlflow import pyfunc
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    features = TensorSpec(np.dtype(np.float32), (-1, -1))
    signature = ModelSignature(inputs=Schema([images]), outputs=Schema([features]))
    model = Model(artifact_path=folder, run_id=run_id, signature=signature)
    pyfunc.add_to_model(model, loader_module=_LOADER, data=_DATA)
    model.save(str(directory / _MODEL_FILE))
