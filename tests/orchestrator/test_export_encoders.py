"""Each export is loaded by the library that it is for, and its features are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from core_models import ENCODER, tiny_images, tiny_state

from jepa_core.encoder import EncoderSettings
from jepa_core.interop import timm_arguments
from orchestrator.errors import CheckpointError, OrchestratorError
from orchestrator.export import ExportedEncoder, encoder_of, export_encoder

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def exported(settings: EncoderSettings = ENCODER) -> ExportedEncoder:
    """The target encoder of a state in which no weight has its initial value."""
    state, generator = tiny_state(encoder=settings), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in state.objective.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    encoder = encoder_of(state.state_dict()["tensors"], settings)
    return ExportedEncoder(encoder=encoder, settings=settings, mean=MEAN, std=STD)


@pytest.mark.parametrize("settings", [ENCODER, replace(ENCODER, name="vit_base_patch16_clip_224")])
def test_timm_loads_the_weights_strictly_and_gives_the_pooled_features(
    tmp_path: Path, settings: EncoderSettings
) -> None:
    import timm
    from safetensors.torch import load_file

    ours, images = exported(settings), tiny_images()
    export_encoder(ours, "timm", tmp_path)
    model = timm.create_model(settings.name, **timm_arguments(settings)).eval()
    model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(model(images), ours.encoder(images).mean(dim=1), **NEAR)


def test_timm_builds_the_model_from_the_folder_alone(tmp_path: Path) -> None:
    import timm

    ours, images = exported(), tiny_images()
    export_encoder(ours, "timm", tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert model.pretrained_cfg["mean"] == list(MEAN)
    with torch.no_grad():
        torch.testing.assert_close(model(images), ours.encoder(images).mean(dim=1), **NEAR)


def test_transformers_loads_the_folder_with_no_key_left_over(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, images = exported(), tiny_images()
    export_encoder(ours, "transformers", tmp_path)
    model, loading = transformers.IJepaModel.from_pretrained(
        tmp_path, add_pooling_layer=False, output_loading_info=True
    )
    assert {key: found for key, found in loading.items() if found} == {}
    with torch.no_grad():
        found = model.eval()(pixel_values=images).last_hidden_state
        torch.testing.assert_close(found, ours.encoder(images), **NEAR)


def test_transformers_normalises_images_as_the_run_did(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export_encoder(exported(), "transformers", tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = processor(image.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(found.float(), (image / 255 - mean) / std, **NEAR)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [1, 5])
def test_onnxruntime_gives_the_features_of_any_batch(tmp_path: Path, batch: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ours, images = exported(), tiny_images(batch=batch)
    export_encoder(ours, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    features, pooled = session.run(["features", "pooled"], {"images": images.numpy()})
    with torch.no_grad():
        expected = ours.encoder(images)
    torch.testing.assert_close(torch.from_numpy(features), expected, **NEAR)
    torch.testing.assert_close(torch.from_numpy(pooled), expected.mean(dim=1), **NEAR)


def test_an_encoder_that_transformers_has_not_is_refused_by_name(tmp_path: Path) -> None:
    ours = exported(replace(ENCODER, name="vit_base_patch16_clip_224"))
    with pytest.raises(OrchestratorError, match=r"cannot export to transformers.*norm_pre"):
        export_encoder(ours, "transformers", tmp_path)


def test_the_context_encoder_is_exported_when_asked_for() -> None:
    state = tiny_state()
    with torch.no_grad():
        state.objective.context_encoder.norm.bias.fill_(3.0)
    tensors = state.state_dict()["tensors"]
    assert encoder_of(tensors, ENCODER, part="context").norm.bias[0] == 3.0
    assert encoder_of(tensors, ENCODER).norm.bias[0] == 0.0


def test_a_checkpoint_of_another_encoder_is_refused() -> None:
    tensors = tiny_state().state_dict()["tensors"]
    with pytest.raises(CheckpointError, match="does not hold this configuration's encoder"):
        encoder_of(tensors, replace(ENCODER, depth=3))


def test_a_rectangular_encoder_reads_the_same_in_both_libraries(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import timm

    ours, images = exported(replace(ENCODER, image_size_px=(16, 24))), tiny_images()[..., :16, :]
    export_encoder(ours, "timm", tmp_path / "timm")
    export_encoder(ours, "transformers", tmp_path / "transformers")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    other = transformers.IJepaModel.from_pretrained(tmp_path / "transformers", add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = ours.encoder(images)
        torch.testing.assert_close(model(images), expected.mean(dim=1), **NEAR)
        torch.testing.assert_close(other(pixel_values=images).last_hidden_state, expected, **NEAR)
    assert model.pretrained_cfg["input_size"] == (3, 16, 24)
