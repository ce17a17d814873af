"""The source holds no call that runs what it reads."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "jepa_core").rglob("*.py")])
FORBIDDEN = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "cloudpickle.load",
    "cloudpickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "joblib.load",
    "tarfile.extractall",
    "Tuner.restore",
}


def faults_of(source: str) -> list[str]:
    """Calls that read and run, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_unsafe_torch = name == "torch.load" and keywords.get("weights_only") != "True"
        is_shell = keywords.get("shell", "False") != "False"
        is_unsafe_numpy = keywords.get("allow_pickle", "False") != "False"
        is_extracting = name.endswith((".extractall", ".extract"))
        if name in FORBIDDEN or is_unsafe_torch or is_shell or is_unsafe_numpy or is_extracting:
            found.append(f"{node.lineno}: {name}")
    return found


def test_nothing_that_is_read_is_run() -> None:
    assert {"orchestrator/cli/__init__.py", "jepa_core/step.py"} <= {
        str(file.relative_to(ROOT)) for file in FILES
    }
    faults = {str(file.relative_to(ROOT)): faults_of(file.read_text(encoding="utf-8")) for file in FILES}
    assert {file: found for file, found in faults.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "pickle.loads(data)",
        "yaml.load(text, Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(command, shell=True)",
        "numpy.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "tune.Tuner.restore(path)".removeprefix("tune."),
    ],
)
def test_the_search_sees_each_kind(line: str) -> None:
    assert len(faults_of(line)) == 1
