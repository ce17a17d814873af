"""Where a step's time goes: seconds by phase, measured without making the host wait for the device.

On a CPU a phase is the clock between its ends; on a CUDA device it is the time between two events on its stream, read
only once the device has passed them. The parts of the forward pass are found by name among an objective's children, so
an objective needs no line of its own for this.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

PARTS = {"target_encoder": "target", "context_encoder": "context", "predictor": "predictor"}
PHASES = ("target", "context", "predictor", "backward", "optimizer", "ema")


class PhaseTimer:
    """Sums seconds by phase between two calls of `drain`."""

    def __init__(self, device: torch.device | str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._device = torch.device(device)
        self._seconds: dict[str, float] = {}
        self._pending: deque[tuple[str, Any, Any]] = deque()
        self._handles: list[Any] = []
        self._wrapped: list[tuple[nn.Module, str, Any]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`."""
        started = self._mark()
        try:
            yield
        finally:
            self._end(name, started)

    def attach(self, objective: nn.Module) -> None:
        """Count calls of the objective's encoders and predictor as phases, while it trains, until `detach`."""
        for child, name in PARTS.items():
            part = getattr(objective, child, None)
            is_shared = child == "target_encoder" and part is getattr(objective, "context_encoder", None)
            if isinstance(part, nn.Module) and not is_shared:
                self._watch(part, name)

    def detach(self) -> None:
        """Stop counting the objective's parts."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for part, entrance, before in self._wrapped:
            if before is None:
                delattr(part, entrance)
            else:
                setattr(part, entrance, before)
        self._wrapped.clear()

    def drain(self) -> dict[str, float]:
        """Seconds by phase since the last call, and start anew; waits for a CUDA device to reach this point."""
        if self._pending:
            torch.cuda.synchronize(self._device)
        self._collect()
        found, self._seconds = self._seconds, {}
        return found

    def _watch(self, part: nn.Module, name: str) -> None:
        started: list[Any] = []

        def before(module: nn.Module, arguments: Any) -> None:
            if module.training:
                started.append(self._mark())

        def after(module: nn.Module, arguments: Any, result: Any) -> None:
            if started:
                self._end(name, started.pop())

        self._handles.append(part.register_forward_pre_hook(before))
        self._handles.append(part.register_forward_hook(after))
        for entrance in getattr(part, "entrances", ("forward",))[1:]:
            self._wrap(part, entrance, name)

    def _wrap(self, part: nn.Module, entrance: str, name: str) -> None:
        """Count calls of another method that runs the part, which hooks do not see; FSDP may have wrapped it before."""
        inner: Callable[..., Any] = getattr(part, entrance)

        @functools.wraps(inner)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.phase(name) if part.training else nullcontext():
                return inner(*arguments, **named)

        self._wrapped.append((part, entrance, vars(part).get(entrance)))
        setattr(part, entrance, timed)

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _end(self, name: str, started: Any) -> None:
        if not self._cuda:
            self._add(name, time.perf_counter() - started)
            return
        self._pending.append((name, started, self._mark()))
        self._collect()

    def _collect(self) -> None:
        """Read the events that the device has passed."""
        while self._pending and self._pending[0][2].query():
            name, started, ended = self._pending.popleft()
            self._add(name, started.elapsed_time(ended) / 1000)

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
