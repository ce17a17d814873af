"""One training step: state and batch to state, with the metrics left on the device.

Owns the state of a run between steps, its exact saving and loading, and the order of what a step does. Nothing here
waits for the device. Leaves out data, masks, probes and the loop around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.execution import ExecutionSettings, micro_batches, pad_masks, prepare_module
from jepa_core.masks import MaskBatch
from jepa_core.objectives import Objective, ObjectiveSettings, PixelStatistics, build_objective
from jepa_core.optim import OptimizerSettings, build_optimizer, set_rates
from jepa_core.parallel import gradients_stay_local, shard
from jepa_core.phases import PhaseTimer
from jepa_core.predictor import PredictorSettings
from jepa_core.sharding import like, load_whole, whole

Precision = Literal["float32", "bfloat16", "float64"]


@dataclass
class TrainState:
    """Everything a run carries from step to step; `step` counts finished steps."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    optimizer_settings: OptimizerSettings
    ema_settings: EmaSettings
    total_steps: int
    precision: Precision = "float32"
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.objective.parameters()).device

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly: `tensors`, a flat dict, and `meta`, which is JSON-able.

        The tensors are the live ones: save or copy them before the next step. Where they are sharded they are
        gathered, and every rank must call this.
        """
        tensors = {
            f"objective/{name}": whole(value.detach()) for name, value in self.objective.state_dict().items()
        }
        for name, parameter in self._trainable():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = whole(value.detach())
        return {"tensors": tensors, "meta": {"step": self.step, "total_steps": self.total_steps}}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state; the given tensors are copied.

        Raises:
            ValueError: The state is of another model or of a run of another length.
        """
        tensors, meta = saved["tensors"], saved["meta"]
        if meta["total_steps"] != self.total_steps:
            raise ValueError(
                f"the state is of a run of {meta['total_steps']} steps, this one has {self.total_steps}"
            )
        self._load_objective(tensors)
        self._load_optimizer(tensors)
        self.step = int(meta["step"])

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, value) for name, value in self.objective.named_parameters() if value.requires_grad]

    def _load_objective(self, tensors: Mapping[str, Tensor]) -> None:
        found = {
            key.removeprefix("objective/"): v for key, v in tensors.items() if key.startswith("objective/")
        }
        try:
            load_whole(self.objective, found)
        except RuntimeError as err:
            raise ValueError(f"the state is of another model: {err}") from err

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        names = {parameter: name for name, parameter in self._trainable()}
        found: dict[str, dict[str, Tensor]] = {name: {} for name in names.values()}
        for path in (path for path in tensors if path.startswith("optimizer/")):
            _, key, name = path.split("/", 2)
            if name not in found:
                raise ValueError(f"the state is of another model: its optimiser knows a parameter {name!r}")
            found[name][key] = tensors[path].clone()
        if len({frozenset(values) for values in found.values()}) > 1:
            raise ValueError("the state's optimiser part is incomplete")
        order = [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]
        packed = self.optimizer.state_dict()
        parameters = dict(self._trainable())
        packed["state"] = {
            index: {
                key: like(value, parameters[name]) if value.ndim else value
                for key, value in found[name].items()
            }
            for index, name in enumerate(order)
            if found[name]
        }
        self.optimizer.load_state_dict(packed)


def create_state(
    *,
    encoder: EncoderSettings,
    predictor: PredictorSettings,
    objective: ObjectiveSettings,
    optimizer: OptimizerSettings,
    ema: EmaSettings,
    total_steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    execution: ExecutionSettings | None = None,
    distributed: bool = False,
    pixels: PixelStatistics | None = None,
) -> TrainState:
    """The untrained state of a run: a function of the settings and the seed, the same on every device.

    The global random state is neither used nor changed. `distributed` says that this is one of several processes of
    an initialised group, among which `execution.parallel: fsdp` shards the state. `pixels` says how the images are
    normalised, for methods that change colours; None is ImageNet's usual.

    Raises:
        ValueError: The settings do not fit each other.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps must be at least 1, not {total_steps}")
    module = build_objective(
        encoder=encoder, predictor=predictor, objective=objective, seed=seed, pixels=pixels
    )
    dtype = torch.float64 if precision == "float64" else torch.float32
    module.to(device=device, dtype=dtype)
    execution = execution or ExecutionSettings()
    prepare_module(module, execution, device, low_precision=precision == "bfloat16")
    if distributed and execution.parallel == "fsdp":
        shard(module)
    return TrainState(
        objective=module,
        optimizer=build_optimizer(module, optimizer, kernel=execution.optimizer),
        optimizer_settings=optimizer,
        ema_settings=ema,
        total_steps=total_steps,
        precision=precision,
        execution=execution,
    )


def train_step(
    state: TrainState,
    images_BCHW: Tensor,
    masks: MaskBatch | Sequence[MaskBatch],
    *,
    model: nn.Module | None = None,
    timer: PhaseTimer | None = None,
) -> dict[str, Tensor]:
    """Train on one batch of normalised images and return scalars that stay on the device.

    `masks` are the batch's, or those of each of its equal shares in turn: a process that does the work of several
    computes what they would together, with the memory of one. `model` is the objective wrapped for data-parallel
    training, when it is; `timer` is told of the phases. Order: schedules, loss, gradient, optimiser, target encoder.

    Source: I-JEPA (arXiv 2301.08243), section 3; order of the published implementation.
    """
    rates = rates_at(state, state.step)
    set_rates(
        state.optimizer,
        learning_rate=rates["train/learning_rate"],
        weight_decay=rates["train/weight_decay"],
    )
    shares = [masks] if isinstance(masks, MaskBatch) else list(masks)
    if state.objective.takes_padding:
        shares = [pad_masks(share, state.execution.pad_tokens_to) for share in shares]
    loss = _accumulate(state, images_BCHW, shares, model=model or state.objective, timer=timer)
    metrics = {"train/loss": loss}
    clip_norm = state.optimizer_settings.gradient_clip_norm
    if clip_norm is not None:
        trainable = [parameter for _, parameter in state._trainable()]
        metrics["train/gradient_norm"] = whole(nn.utils.clip_grad_norm_(trainable, clip_norm))
    with _phase(timer, "optimizer"):
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
    with _phase(timer, "ema"):
        state.objective.update_target(rates["train/momentum"])
    state.step += 1
    for name, value in rates.items():
        metrics[name] = torch.full((), value, dtype=torch.float64, device=loss.device)
    return metrics


def _accumulate(
    state: TrainState,
    images_BCHW: Tensor,
    shares: Sequence[MaskBatch],
    *,
    model: nn.Module,
    timer: PhaseTimer | None,
) -> Tensor:
    """The gradient of the batch's loss, micro-batch by micro-batch; returns the loss.

    Each micro-batch counts by its part of the terms that its share's loss is a mean of, and every share the same, as
    the processes of a data-parallel run do: the sum is the whole batch's.
    """
    parts = [
        (images, part, masks)
        for share_images, masks in zip(images_BCHW.tensor_split(len(shares)), shares, strict=True)
        for images, part in micro_batches(share_images, masks, state.execution.accumulation_steps)
    ]
    losses = []
    for number, (images, part, masks) in enumerate(parts, start=1):
        with gradients_stay_local(model, number < len(parts)):
            with autocast(images.device, state.precision):
                loss = model(images, part)
            if len(parts) > len(shares):
                loss = loss * _part(
                    state.objective.num_terms(part), state.objective.num_terms(masks), loss.dtype
                )
            if len(shares) > 1:
                loss = loss / len(shares)
            with _phase(timer, "backward"):
                loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]


def _part(part: int | Tensor, share: int | Tensor, dtype: torch.dtype) -> float | Tensor:
    """A micro-batch's part of its share of the batch, in the loss's precision."""
    return part.to(dtype) / share if isinstance(part, Tensor) else part / share


def _phase(timer: PhaseTimer | None, name: str) -> AbstractContextManager[None]:
    return nullcontext() if timer is None else timer.phase(name)


def rates_at(state: TrainState, step: int) -> dict[str, float]:
    """Learning rate, weight decay and momentum of the step after `step` finished ones, under their metric names."""
    settings, ema = state.optimizer_settings, state.ema_settings
    return {
        "train/learning_rate": settings.learning_rate_at(step, state.total_steps),
        "train/weight_decay": settings.weight_decay_at(step, state.total_steps),
        "train/momentum": ema.momentum_at(
            step, state.total_steps, schedule_stretch=settings.schedule_stretch
        ),
    }


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a forward pass of this precision runs."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def prepare_images(
    images_uint8_BCHW: Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> Tensor:
    """Move uint8 images to the device and normalise them: (image / 255 - mean) / std for each channel, float32."""
    images = images_uint8_BCHW.to(device, non_blocking=True)
    images = images.to(torch.float32, memory_format=torch.contiguous_format)  # they may come channels last
    scale = torch.stack([torch.full((1, 1), 1 / (255 * value), device=device) for value in std])
    shift = torch.stack([torch.full((1, 1), -m / s, device=device) for m, s in zip(mean, std, strict=True)])
    return torch.addcmul(shift, images, scale)
