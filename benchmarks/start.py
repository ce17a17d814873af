"""What the start of a command and of a sweep's processes costs: CPU seconds and peak memory of whole processes.

Each entry runs in processes of its own, taking turns, beside an empty `python -c pass` and a bare `import torch`; the
median of the rounds counts, and the least is held to the targets, since others on the machine slow them all. The
commands read the record of a made-up sweep of 60 trials. Ends with an error where a target is missed.

A process starts with the peak of the one that made it, so nothing large is imported here before all are measured.

    python benchmarks/start.py          # about three minutes, writes results/start-cpu.json
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
ROUNDS = 7
TARGETS = {
    "import orchestrator.config": {"least_cpu_s": 0.3},
    "orchestrator status": {"least_cpu_s": 0.8, "peak_mb": 150},
}
"""Of issue 18: settings without torch in 0.3 s, the status of 60 trials in 0.8 s and 150 MB."""


def run_once(command: Sequence[str]) -> tuple[float, float]:
    """CPU seconds and peak megabytes of a process that must succeed."""
    child = os.posix_spawn(
        command[0],
        command,
        {**os.environ, "OMP_NUM_THREADS": "1"},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} ended with {code}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def write_sweep(runs: Path) -> str:
    """Write the record of a sweep of 60 trials below a folder, in a process of its own; returns its id."""
    script = "import sys; from pathlib import Path; from sweep_records import sweep_events, write_journal; "
    script += "print(write_journal(Path(sys.argv[1]), sweep_events()))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(runs)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


def entries(runs: Path) -> Mapping[str, Sequence[str]]:
    """Every command that is measured, by what it is called in the results."""
    sweep = write_sweep(runs)
    code = {"pass": "pass", "import torch": "import torch"}
    modules = (
        "config",
        "sweep.run.coordinator",
        "sweep.search.tune_trial",
        "train.ray.slot",
        "sweep.run.driver",
    )
    for module in modules:
        code[f"import orchestrator.{module}"] = f"import orchestrator.{module}"
    code["import ray.tune"] = "import ray.tune"
    code["import torch, ray.train.torch"] = "import torch, ray.train.torch"
    commands = {
        "--help": ("--help",),
        "ls": ("ls", "--runs", str(runs)),
        "status": ("status", sweep, "--runs", str(runs)),
        "logs": ("logs", sweep, "--runs", str(runs)),
        "config show": ("config", "show", "sweeps/masks.yaml"),
    }
    return {
        **{name: (sys.executable, "-c", text) for name, text in code.items()},
        **{
            f"orchestrator {name}": (sys.executable, "-m", "orchestrator", *arguments)
            for name, arguments in commands.items()
        },
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = entries(Path(folder))
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for number in range(ROUNDS + 1):
            for name, command in found.items():
                taken = run_once(command)
                if number:  # the first round fills the disk's cache
                    runs[name].append(taken)
    figures = {
        name: {
            "cpu_s": round(statistics.median(cpu_s for cpu_s, _ in taken), 3),
            "least_cpu_s": round(min(cpu_s for cpu_s, _ in taken), 3),
            "peak_mb": round(statistics.median(peak_mb for _, peak_mb in taken)),
        }
        for name, taken in runs.items()
    }
    from data_common import save

    save(
        "start",
        {"rounds": ROUNDS, "targets": TARGETS, "figures": figures},
        packages=("torch", "ray", "pydantic"),
    )
    missed = [
        f"{name}: {unit} {figures[name][unit]}, not {most} at most"
        for name, limits in TARGETS.items()
        for unit, most in limits.items()
        if figures[name][unit] > most
    ]
    if missed:
        sys.exit("; ".join(missed))


if __name__ == "__main__":
    main()
