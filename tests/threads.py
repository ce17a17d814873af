"""One thread for torch and BLAS, here and in every process that a test starts. Imported before either.

The tests' tensors are tiny: threads that wait for each other cost minutes on a busy machine. Ray's workers do not give
way to other processes, as they do by default (niceness 15).
"""

from __future__ import annotations

import os
import sys

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("RAY_worker_niceness", "0")


def reset() -> None:
    """Code under test may have set torch's threads for the whole process."""
    torch, wanted = sys.modules.get("torch"), int(os.environ["OMP_NUM_THREADS"])
    if torch is not None and torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
