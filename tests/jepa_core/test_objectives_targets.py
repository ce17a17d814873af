"""Every form of I-JEPA's targets against a loop, and what must hold in each: steps, costs, shares of a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from core_models import ENCODER, method_masks, padded, tiny_images, tiny_masks, tiny_state
from torch import Tensor, multiprocessing

from jepa_core.execution import ExecutionSettings, micro_batches
from jepa_core.masks import MaskSettings
from jepa_core.objectives import IJepa, IJepaSettings, counted_flops_per_image
from jepa_core.objectives.augment import flip_half
from jepa_core.parallel import wrap
from jepa_core.phases import PHASES, PhaseTimer
from jepa_core.step import TrainState, train_step

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}
FORMS: dict[str, dict[str, Any]] = {
    "batch": {"target_norm": "batch"},
    "instance": {"target_norm": "instance"},
    "tanh": {"target_norm": "tanh"},
    "none": {"target_norm": "none"},
    "layers": {"target_layers": 2},
    "instance-layers": {"target_norm": "instance", "target_layers": 2},
    "batch-layers": {"target_norm": "batch", "target_layers": 2},
    "predictions": {"normalize_predictions": True},
}
every_form = pytest.mark.parametrize("form", FORMS)
SAME_STEP: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-9}


def state_of(form: str, **changes: Any) -> TrainState:
    return tiny_state(objective=IJepaSettings(**FORMS[form]), precision="float64", **changes)


def module_of(form: str) -> IJepa:
    module = state_of(form).objective
    assert isinstance(module, IJepa)
    return module


def naive_scaled(features: Tensor, norm: str) -> Tensor:
    """Value by value, in plain loops over what the statistics are not taken of."""
    found = torch.empty_like(features)
    images, _, width = features.shape
    for image in range(images):
        for k in range(width):
            own = {"batch": features[:, :, k], "instance": features[image, :, k]}.get(norm)
            values = features[image, :, k]
            if own is not None:
                values = (values - own.mean()) / (own.var(correction=0) + 1e-5).sqrt()
            elif norm == "tanh":
                values = (torch.exp(values) - 1) / (torch.exp(values) + 1)
            found[image, :, k] = values
    return found if norm != "layer" else F.layer_norm(features, (width,))


def naive_features(module: IJepa, images: Tensor, norm: str, layers: int) -> Tensor:
    """The blocks one after another by hand; a single one goes through the final norm, but under tanh."""
    encoder = module.target_encoder
    tokens, outputs = encoder._embed(_patches(images)) + encoder.position_ND, []
    for block in encoder.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    if layers == 1 and norm != "tanh":
        outputs = [encoder.norm(tokens)]
    return torch.stack([naive_scaled(output, norm) for output in outputs[-layers:]]).mean(0)


def _patches(images: Tensor) -> Tensor:
    cut = images.unfold(2, 4, 4).unfold(3, 4, 4)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(len(images), 36, -1)


@every_form
@torch.no_grad()
def test_targets_are_what_loops_over_blocks_and_features_give(form: str) -> None:
    module, images, masks = module_of(form), tiny_images(dtype=torch.float64), tiny_masks(blocks=2)
    settings = module.settings
    features = naive_features(module, images, settings.target_norm, settings.target_layers)
    expected = [
        features[image, wanted]
        for targets_BT in masks.target_indices_MBT
        for image, wanted in enumerate(targets_BT)
    ]
    torch.testing.assert_close(module.targets(images, masks), torch.stack(expected), **EXACT)
    torch.testing.assert_close(
        module.target_spread(images),
        features.var(dim=0, correction=0).mean().float(),
        rtol=1e-5,
        atol=1e-7,
    )


def test_normalised_predictions_have_mean_0_and_variance_1_and_nothing_else_changes() -> None:
    images, masks = tiny_images(dtype=torch.float64), tiny_masks()
    plain = tiny_state(precision="float64").objective
    assert isinstance(plain, IJepa)
    given = plain.predictions(images, masks)
    centred = given - given.mean(-1, keepdim=True)
    expected = centred / (given.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    module = module_of("predictions")
    torch.testing.assert_close(module.predictions(images, masks), expected, **EXACT)
    loss = F.smooth_l1_loss(expected, plain.targets(images, masks))
    torch.testing.assert_close(module(images, masks), loss, **EXACT)


@every_form
def test_padding_changes_no_form_of_the_loss(form: str) -> None:
    module, images, masks = module_of(form), tiny_images(dtype=torch.float64), tiny_masks()
    torch.testing.assert_close(
        module(images, padded(masks, context=2, target=3)), module(images, masks), **EXACT
    )


@every_form
def test_no_form_costs_more_matrix_products(form: str) -> None:
    plain = counted_flops_per_image(tiny_state().objective, MaskSettings())
    found = counted_flops_per_image(
        tiny_state(objective=IJepaSettings(**FORMS[form])).objective, MaskSettings()
    )
    assert found == plain


@every_form
@pytest.mark.parametrize(
    "execution",
    [
        ExecutionSettings(activation_checkpointing=True, pad_tokens_to=8),
        pytest.param(
            ExecutionSettings(compile="blocks", compile_backend="aot_eager"),
            marks=pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
        ),
    ],
    ids=["checkpointing", "compiled"],
)
def test_how_a_step_is_computed_changes_no_form(form: str, execution: ExecutionSettings) -> None:
    found = []
    for each in (ExecutionSettings(), execution):
        state = state_of(form, execution=each)
        train_step(state, tiny_images(dtype=torch.float64), tiny_masks())
        found.append(state.state_dict()["tensors"])
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, **SAME_STEP, msg=key)


@pytest.mark.parametrize("form", [form for form in FORMS if "batch" not in form])
def test_micro_batches_take_the_step_of_the_whole_batch_in_every_form_of_single_images(form: str) -> None:
    found = []
    for parts in (1, 3):
        state = state_of(form, execution=ExecutionSettings(accumulation_steps=parts))
        train_step(state, tiny_images(batch=4, dtype=torch.float64), tiny_masks(batch=4))
        found.append(state.state_dict()["tensors"])
        assert not state.objective.needs_whole_batch
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, **SAME_STEP, msg=key)


def test_targets_of_the_whole_batch_need_it_whole() -> None:
    assert module_of("batch").needs_whole_batch


TOGETHER = (("batch", "ddp"), ("batch-layers", "fsdp"), ("instance-layers", "fsdp"))


def _train_as_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for form, parallel in TOGETHER:
        execution = ExecutionSettings(parallel=parallel)  # type: ignore[arg-type]
        state = state_of(form, execution=execution, distributed=True)
        images, masks = micro_batches(tiny_images(batch=4, dtype=torch.float64), tiny_masks(batch=4), 2)[rank]
        train_step(state, images, masks, model=wrap(state.objective))
        tensors = {key: value.clone() for key, value in state.state_dict()["tensors"].items()}
        if rank == 0:
            torch.save(tensors, f"{folder}/{form}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_take_the_targets_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(_train_as_one_of_two, (str(tmp_path),), nprocs=2)
    for form, _ in TOGETHER:
        found = torch.load(tmp_path / f"{form}.pt", weights_only=True)
        state = state_of(form)
        train_step(state, tiny_images(batch=4, dtype=torch.float64), tiny_masks(batch=4))
        for key, value in state.state_dict()["tensors"].items():
            torch.testing.assert_close(found[key], value, **SAME_STEP, msg=f"{form} {key}")


@pytest.mark.parametrize("form", ["layers", "instance-layers", "tanh"])
def test_a_teacher_read_at_its_blocks_is_timed_as_any_other(form: str) -> None:
    state, timer = state_of(form), PhaseTimer("cpu")
    timer.attach(state.objective)
    train_step(state, tiny_images(dtype=torch.float64), tiny_masks(), timer=timer)
    assert set(timer.drain()) == set(PHASES)
    timer.detach()
    state.objective(tiny_images(dtype=torch.float64), tiny_masks())
    assert timer.drain() == {}


@pytest.mark.parametrize("norm", ["tanh", "none"])
def test_normalised_predictions_are_refused_for_targets_of_another_scale(norm: Any) -> None:
    with pytest.raises(ValueError, match="normalize_predictions cannot be true with target_norm"):
        IJepaSettings(normalize_predictions=True, target_norm=norm)


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_the_encoder_does_not_have_are_refused(layers: int) -> None:
    with pytest.raises(ValueError, match="target_layers must be"):
        tiny_state(objective=IJepaSettings(target_layers=layers), encoder=replace(ENCODER, depth=2))


@pytest.mark.parametrize("sampler", ["exact", "reference", "random", "block", "rasterized"])
def test_a_mirrored_image_is_one_of_seed_epoch_and_sample_under_every_sampler(sampler: Any) -> None:
    """Context and targets see the same mirrored image, and the images beside it in the batch play no part."""
    module = tiny_state(precision="float64", objective=IJepaSettings(horizontal_flip=True)).objective
    plain = tiny_state(precision="float64").objective
    num_blocks = 3 if sampler == "rasterized" else 4
    drawn = module.build_sampler(MaskSettings(sampler=sampler, num_target_blocks=num_blocks))
    images, ids = tiny_images(batch=8, dtype=torch.float64), torch.arange(8)
    mirrored = []
    for epoch in (0, 1):
        masks = drawn.sample(ids, torch.full_like(ids, epoch), seed=0, step=epoch)
        assert masks.keys_B is not None
        flipped = flip_half(images, masks.keys_B)
        torch.testing.assert_close(module(images, masks), plain(flipped, masks), **EXACT)
        swapped = drawn.sample(ids.flip(0), torch.full_like(ids, epoch), seed=0, step=epoch)
        torch.testing.assert_close(flip_half(images.flip(0), swapped.keys_B), flipped.flip(0), **EXACT)
        mirrored.append([not torch.equal(one, other) for one, other in zip(flipped, images, strict=True)])
    assert all(0 < sum(each) < 8 for each in mirrored)
    assert mirrored[0] != mirrored[1]


def test_images_are_not_mirrored_unless_asked_for_and_never_where_health_is_measured() -> None:
    images, masks = tiny_images(dtype=torch.float64), method_masks(tiny_state().objective)
    assert not IJepaSettings().horizontal_flip
    module = tiny_state(precision="float64", objective=IJepaSettings(horizontal_flip=True)).objective
    plain = tiny_state(precision="float64").objective
    assert isinstance(module, IJepa)
    assert isinstance(plain, IJepa)
    torch.testing.assert_close(module.targets(images, masks), plain.targets(images, masks), **EXACT)
    torch.testing.assert_close(module.target_spread(images), plain.target_spread(images), **EXACT)


def test_micro_batches_mirror_the_images_that_the_whole_batch_does() -> None:
    found = []
    for parts in (1, 3):
        execution = ExecutionSettings(accumulation_steps=parts, pad_tokens_to=8)
        state = tiny_state(
            precision="float64", objective=IJepaSettings(horizontal_flip=True), execution=execution
        )
        masks = method_masks(state.objective, batch=4)
        train_step(state, tiny_images(batch=4, dtype=torch.float64), masks)
        found.append(state.state_dict()["tensors"])
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, **SAME_STEP, msg=key)
