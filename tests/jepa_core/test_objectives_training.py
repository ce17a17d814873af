"""Every method trains, resumes exactly, shares its weights where it has no teacher, and costs what is published."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
from core_models import ENCODER, method_masks, tiny_images, tiny_state
from torch import Tensor

from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.execution import ExecutionSettings
from jepa_core.masks import MaskSettings
from jepa_core.objectives import (
    CaeSettings,
    Data2Vec2Settings,
    Data2VecSettings,
    DinoSettings,
    IJepaSettings,
    MaeSettings,
    VicRegSettings,
    build_objective,
    counted_flops_per_image,
)
from jepa_core.objectives.parts import hidden_pixels
from jepa_core.optim import OptimizerSettings
from jepa_core.parallel import wrap
from jepa_core.predictor import PredictorSettings
from jepa_core.step import TrainState, train_step

LARGE_CROPS: dict[str, Any] = {
    "global_crop_scale": (0.5, 1.0),
    "colour_strength": 0.0,
    "blur": False,
    "solarize": False,
}
GENTLE: dict[str, Any] = {"colour_strength": 0.5, "blur": False, "solarize": False}
METHODS: dict[str, Any] = {
    "ijepa": IJepaSettings(),
    "mae": MaeSettings(decoder_width=32, decoder_depth=1, decoder_num_heads=2),
    "data2vec": Data2VecSettings(averaged_layers=1),
    "data2vec2": Data2Vec2Settings(masked_views=2, decoder_groups=4, decoder_depth=2),
    "cae": CaeSettings(regressor_depth=1, decoder_depth=1),
    "vicreg": VicRegSettings(projector_width=64, crop_scale=(0.5, 1.0), **GENTLE),
    "dino": DinoSettings(
        num_local_crops=1,
        num_prototypes=64,
        head_width=32,
        teacher_temperature=0.01,
        global_crop_scale=(0.5, 1.0),
        local_crop_scale=(0.3, 0.5),
        **GENTLE,
    ),
}
every_method = pytest.mark.parametrize("name", METHODS)


def state_of(name: str, **changes: Any) -> TrainState:
    return tiny_state(objective=METHODS[name], **changes)


def smooth_images(count: int) -> Tensor:
    """Images whose neighbouring pixels agree, so that hidden ones can be told from visible ones."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=24, mode="bicubic")


def train(state: TrainState, images: Tensor, steps: range) -> list[float]:
    losses = []
    for step in steps:
        masks = method_masks(state.objective, batch=len(images), epoch=step)
        losses.append(train_step(state, images, masks)["train/loss"].item())
    return losses


@every_method
def test_a_run_goes_on_from_its_saved_state_bit_for_bit(name: str) -> None:
    straight, images = state_of(name), tiny_images()
    train(straight, images, range(2))
    saved = straight.state_dict()
    tensors = {key: value.clone() for key, value in saved["tensors"].items()}
    meta = json.loads(json.dumps(saved["meta"]))
    expected = train(straight, images, range(2, 4))
    resumed = state_of(name, seed=5)
    resumed.load_state_dict({"tensors": tensors, "meta": meta})
    assert train(resumed, images, range(2, 4)) == expected
    found = resumed.state_dict()["tensors"]
    assert all(torch.equal(found[key], value) for key, value in straight.state_dict()["tensors"].items())


@every_method
def test_a_step_leaves_the_global_random_state_alone_and_trains_every_trainable_weight(name: str) -> None:
    before = torch.get_rng_state()
    state = state_of(name)
    weights = {key: value.clone() for key, value in state.objective.named_parameters() if value.requires_grad}
    train(state, smooth_images(4), range(2))
    assert torch.equal(torch.get_rng_state(), before)
    after = dict(state.objective.named_parameters())
    assert [key for key, value in weights.items() if torch.equal(after[key], value)] == []


@every_method
def test_every_method_starts_from_the_same_encoder(name: str) -> None:
    first = state_of("ijepa").objective.context_encoder.state_dict()
    for encoder in (state_of(name).objective.context_encoder, state_of(name).objective.target_encoder):
        assert all(torch.equal(value, first[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["mae", "cae", "vicreg"])
def test_without_a_teacher_the_trained_encoder_is_the_one_that_is_probed_and_is_saved_once(name: str) -> None:
    state = state_of(name)
    assert state.objective.target_encoder is state.objective.context_encoder
    assert not any("target_encoder" in key for key in state.state_dict()["tensors"])
    train(state, tiny_images(), range(1))
    assert state.objective.target_encoder is state.objective.context_encoder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "published_gigaflops"),
    [
        (IJepaSettings(), 84.2),
        (MaeSettings(), 58.5),
        (Data2VecSettings(), 140.0),
        (Data2Vec2Settings(), 402.0),
        (CaeSettings(), 110.0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_step_of_a_vit_b16_costs_what_is_published(settings: Any, published_gigaflops: float) -> None:
    """MAE is 3 % below, having no class token and reading its last block at hidden patches alone; CAE 4 % below,
    without the head for 8192 tokens of an external tokeniser."""
    objective = build_objective(
        encoder=EncoderSettings(name="vit_base_patch16_224"),
        predictor=PredictorSettings(),
        objective=settings,
        seed=0,
    )
    found = counted_flops_per_image(objective, MaskSettings(context_keep=51), batch_size=1) / 1e9
    assert found == pytest.approx(published_gigaflops, rel=0.05)


@pytest.mark.parametrize("name", ["vicreg", "dino"])
def test_methods_of_views_can_be_counted_too(name: str) -> None:
    found = counted_flops_per_image(state_of(name).objective, MaskSettings())
    encoder_pass = 2 * 36 * 32 * (48 + 2 * 12 * 32)
    assert found > 2 * 3 * encoder_pass


def learned(name: str, settings: Any, *, learning_rate: float = 1e-3) -> tuple[TrainState, Tensor, float]:
    """A state after 200 steps on few images, these images, and its mean loss at the end."""
    images = 4 * smooth_images(16)
    optimizer = OptimizerSettings(
        learning_rate=learning_rate, start_learning_rate=0.0, warmup_fraction=0.1, final_weight_decay=0.04
    )
    state = tiny_state(
        objective=settings, optimizer=optimizer, ema=EmaSettings(start_momentum=0.98), total_steps=200
    )
    losses = train(state, images, range(200))
    return state, images, sum(losses[-10:]) / 10


@pytest.mark.parametrize(("name", "beta"), [("data2vec", 2.0), ("data2vec2", None)])
def test_a_student_predicts_features_better_than_their_mean_does(name: str, beta: float | None) -> None:
    state, images, loss = learned(name, METHODS[name])
    module: Any = state.objective
    targets = module.targets(images)
    constant = targets.flatten(0, 1).mean(0).expand_as(targets)
    trivial = (
        F.mse_loss(constant, targets) if beta is None else F.smooth_l1_loss(constant, targets, beta=beta)
    )
    assert loss < 0.95 * trivial


def test_mae_learns_more_than_the_mean_of_the_pixels() -> None:
    assert learned("mae", METHODS["mae"])[2] < 0.97 * 47 / 48


def test_cae_learns_more_than_the_mean_of_the_pixels() -> None:
    settings = CaeSettings(regressor_depth=1, decoder_depth=1, alignment_weight=0.5)
    state, images, _ = learned("cae", settings)
    module: Any = state.objective
    masks = method_masks(module, batch=16, epoch=300)
    hidden = masks.target_indices_MBT[0]
    with torch.no_grad():
        features = module.regressed(images, masks.context_indices_CBK[0], hidden)
        decoded = module.decoded(features, hidden)
    pixels = hidden_pixels(images, hidden, module.context_encoder.grid, normalize=True)
    assert F.mse_loss(decoded, pixels) < 0.985 * 47 / 48


def test_vicreg_spreads_features_further_than_a_constant() -> None:
    assert learned("vicreg", METHODS["vicreg"])[2] < 0.8 * VicRegSettings().variance_weight


def test_dino_tells_images_apart_by_its_prototypes() -> None:
    settings = DinoSettings(
        num_local_crops=0, num_prototypes=16, head_width=32, teacher_temperature=0.02, **LARGE_CROPS
    )
    state, images, loss = learned("dino", settings, learning_rate=3e-4)
    assert loss < 0.6 * math.log(16)
    assert assignment_information(state, images) > 2 * assignment_information(
        tiny_state(objective=settings), images
    )


def assignment_information(state: TrainState, images: Tensor) -> float:
    """Mutual information, in nats, of an image and the prototype that the teacher gives it."""
    module: Any = state.objective
    keys = method_masks(module, batch=len(images), epoch=300).keys_B
    with torch.no_grad():
        crops = torch.cat(module.crops(images, keys)[0])
        outputs = module.target_head(module.target_encoder(crops).mean(1)) - module.center_K
        shares = (outputs / module.settings.teacher_temperature).softmax(-1)
    return float(torch.special.entr(shares.mean(0)).sum() - torch.special.entr(shares).sum(-1).mean())


TOGETHER = (("vicreg", "ddp"), ("dino", "ddp"), ("dino", "fsdp"), ("data2vec", "fsdp"), ("mae", "fsdp"))


def _train_as_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name, parallel in TOGETHER:
        weights = _step_on_half(name, rank, parallel)
        if rank == 0:
            torch.save(weights, f"{folder}/{name}-{parallel}.pt")
    torch.distributed.destroy_process_group()


def _step_on_half(name: str, rank: int, parallel: Any) -> dict[str, Tensor]:
    execution = ExecutionSettings(parallel=parallel)
    state = state_of(name, precision="float64", execution=execution, distributed=True)
    masks = method_masks(state.objective, batch=4)
    assert masks.keys_B is not None
    half = slice(2 * rank, 2 * rank + 2)
    own = type(masks)(
        masks.context_indices_CBK[:, half], masks.target_indices_MBT[:, half], keys_B=masks.keys_B[half]
    )
    model = wrap(state.objective)
    train_step(state, tiny_images(batch=4, dtype=torch.float64)[half], own, model=model)
    return {key: value.clone() for key, value in state.state_dict()["tensors"].items()}


@pytest.mark.parametrize("name", ["mae", "data2vec2", "dino"])
def test_micro_batches_take_the_step_of_the_whole_batch(name: str) -> None:
    images = tiny_images(batch=4, dtype=torch.float64)
    found = []
    for parts in (1, 3):
        state = state_of(
            name, precision="float64", execution=ExecutionSettings(accumulation_steps=parts, pad_tokens_to=8)
        )
        train_step(state, images, method_masks(state.objective, batch=4))
        found.append(state.state_dict()["tensors"])
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-7, atol=1e-9, msg=key)


def test_two_processes_take_the_step_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    """Statistics over the batch, the centre among them, are over all processes."""
    multiprocessing.spawn(_train_as_one_of_two, (str(tmp_path),), nprocs=2)
    for name, parallel in TOGETHER:
        found = torch.load(tmp_path / f"{name}-{parallel}.pt", weights_only=True)
        state = state_of(name, precision="float64")
        train_step(state, tiny_images(batch=4, dtype=torch.float64), method_masks(state.objective, batch=4))
        for key, value in state.state_dict()["tensors"].items():
            torch.testing.assert_close(
                found[key],
                value,
                rtol=0,
                atol=1e-6,
                msg=lambda text, key=key, name=name: f"{name} {key}: {text}",
            )


@every_method
def test_every_method_learns_on_a_rectangular_grid(name: str) -> None:
    state = state_of(name, encoder=replace(ENCODER, image_size_px=(24, 32)))
    images = F.interpolate(smooth_images(4), size=(24, 32), mode="bilinear")
    weights = {key: value.clone() for key, value in state.objective.named_parameters() if value.requires_grad}
    assert all(math.isfinite(loss) for loss in train(state, images, range(2)))
    after = dict(state.objective.named_parameters())
    assert [key for key, value in weights.items() if torch.equal(after[key], value)] == []
