"""Energy of the GPU a rank trains on, from NVML's counter; unknown where it cannot be read.

`nvidia-ml-py` is optional. The counter is the whole card's, so a worker that shares its GPU with others, or holds a
slice of one, has no energy of its own to tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.config.models import RunConfig
from orchestrator.protocol.metrics import GPU_ENERGY_J

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_JOULES_PER_MILLIJOULE = 1e-3


@dataclass
class EnergyMeter:
    """Joules between two readings of a counter; once a reading has failed, none is told any more.

    `read_mj` gives the counter in millijoules, or raises; None where there is no counter.
    """

    read_mj: Callable[[], int] | None = None
    _last_mj: int | None = None

    def __post_init__(self) -> None:
        self._last_mj = self._read()

    def take_j(self) -> float | None:
        """Joules since the last call, or since the meter was made; None when they are not known."""
        before, self._last_mj = self._last_mj, self._read()
        if before is None or self._last_mj is None or self._last_mj < before:
            return None
        return _JOULES_PER_MILLIJOULE * (self._last_mj - before)

    def _read(self) -> int | None:
        if self.read_mj is None:
            return None
        try:
            return self.read_mj()
        except Exception as err:  # NVML's errors have no base outside a library that may be missing
            _log.info("the GPU's energy cannot be read: %s", err)
            self.read_mj = None
            return None


def energy_meter(config: RunConfig, device: torch.device) -> EnergyMeter:
    """The meter of a rank's device; one that knows nothing on a CPU, on a shared GPU and without NVML."""
    share = config.train.gpus_per_worker
    is_shared = share != "auto" and share < 1
    if device.type != "cuda" or is_shared:
        return EnergyMeter()
    import torch

    try:
        return EnergyMeter(nvml_counter(f"GPU-{torch.cuda.get_device_properties(device).uuid}"))
    except Exception as err:  # the library is missing, or the driver's is
        _log.info("the GPU's energy cannot be read: %s", err)
        return EnergyMeter()


def nvml_counter(uuid: str) -> Callable[[], int]:
    """Reads the energy in millijoules that the GPU of this UUID has used since its driver was loaded.

    Raises:
        ImportError: `nvidia-ml-py` is not installed.
        pynvml.NVMLError: There is no driver, or no such GPU.
    """
    import pynvml

    pynvml.nvmlInit()
    handle: Any = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def read_mj() -> int:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))

    return read_mj


def summed_j(of_ranks: list[float | None]) -> dict[str, float]:
    """The metric of all ranks together; nothing where one of them does not know."""
    known = [joules for joules in of_ranks if joules is not None]
    return {GPU_ENERGY_J: sum(known)} if known and len(known) == len(of_ranks) else {}
