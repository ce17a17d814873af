"""What a step costs and what the device makes of it: operations per second, their share of the peak, memory.

Leaves out counting operations (`flops`) and where the time goes (`phases`).
"""

from __future__ import annotations

import resource
import sys
import time

import torch

_TERA = 1e12

# Dense matrix-product rates without sparsity, in 10^12 operations a second, from the makers' data sheets: bfloat16 with
# float32 accumulation, and float32 as torch runs it by default (without TF32). The first name found in the device's
# own name counts.
_PEAK_TERAFLOPS: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250.0, 75.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("L4", 121.0, 30.3),
    ("A10", 125.0, 31.2),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Dense matrix-product operations a second that the maker states for a device, or None where we know of none.

    Source: the makers' data sheets.
    """
    for name, bfloat16, float32 in _PEAK_TERAFLOPS:
        if name.lower() in device_name.lower():
            return _TERA * {"bfloat16": bfloat16, "float32": float32}.get(precision, float("nan"))
    return None


def device_name(device: torch.device | str) -> str:
    """What the device calls itself; `cpu` for a CPU."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def model_flops_utilisation(
    flops_per_image: float, images_per_s: float, device: torch.device | str, precision: str
) -> float | None:
    """Share of one device's stated peak that its images a second come to (MFU), or None where no peak is known.

    The operations are the model's own: what checkpointing computes again, and padding, earn nothing.

    Source: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B.
    """
    peak = peak_flops(device_name(device), precision)
    return None if peak is None else flops_per_image * images_per_s / peak


def measured_matmul_flops(device: torch.device | str, precision: str, *, size: int = 1024) -> float:
    """Operations a second of the best of several square matrix products: a limit where no peak is stated."""
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(precision, torch.float32)
    left = torch.ones(size, size, device=device, dtype=dtype)
    alone = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    best = float("inf")
    for _ in range(5):
        synchronise(device)
        started = clock()
        left @ left
        synchronise(device)
        best = min(best, clock() - started)
    return 2 * size**3 / best


def synchronise(device: torch.device | str) -> None:
    """Wait for a CUDA device; nothing to wait for elsewhere."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def take_peak_memory_bytes(device: torch.device | str) -> float:
    """The most memory held since the last call on a CUDA device, and by the process in its life on a CPU."""
    device = torch.device(device)
    if device.type == "cuda":
        found = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return float(found)
    kibibyte = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibyte)
