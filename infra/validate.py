"""Validate everything below infra/: schemas, scripts, and the rules of docs/security.md. `make check` runs it.

    python infra/validate.py [FOLDER]

Prints one line a fault, `file: where: what`, and exits with 1 when there is any. Needs no network and no cluster: Ray's
own schema comes with Ray, Kubernetes' with kubernetes-validate, and the custom resources have ours in schemas/.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import ray.autoscaler
import yaml

HERE = Path(__file__).resolve().parent
KUBERNETES_VERSION = "1.33"
_SECRET_NAME = re.compile(r"(?i)PASSWORD|SECRET|TOKEN|ACCESS_KEY|CREDENTIAL")
_CREDENTIALS = {
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a long random word": re.compile(
        r"\b(?=[A-Za-z0-9+/]*[0-9])(?=[A-Za-z0-9+/]*[A-Za-z])[A-Za-z0-9+]{40,}\b"
    ),
    "a URI with a password": re.compile(r"://[^/\s:@$]+:[^/\s@$]+@"),
}


def faults_of(root: Path = HERE) -> Iterator[str]:
    """One line for every fault in the files below `root`."""
    for path in sorted(root.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts or path.suffix == ".py":
            continue
        for fault in faults_of_file(path):
            yield f"{path.relative_to(root)}: {fault}"


def faults_of_file(path: Path) -> Iterator[str]:
    """The faults of one file."""
    text = path.read_text()
    for what, pattern in _CREDENTIALS.items():
        if pattern.search(text):
            yield f"line {text[: pattern.search(text).start()].count(chr(10)) + 1}: holds {what}"
    if path.suffix in (".sh", ".sbatch"):
        yield from _shell(path)
    elif path.name == "Containerfile":
        yield from _containerfile(text)
    elif path.name == "s3-policy.json":
        yield from _policy(json.loads(text))
    elif path.suffix == ".yaml":
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
        for document in documents:
            yield from _document(document)


def _document(document: dict[str, Any]) -> Iterator[str]:
    if "cluster_name" in document:
        yield from _launcher(document)
    elif "services" in document:
        yield from _compose(document)
    elif document.get("apiVersion", "").startswith("ray.io/"):
        yield from _ray_resource(document)
    elif document.get("apiVersion", "").startswith("kueue.x-k8s.io/"):
        yield from _schema(document, HERE / "schemas" / "kueue.json")
    else:
        yield from _kubernetes(document)


def _schema(document: Any, schema: Path, where: str = "") -> Iterator[str]:
    rules = json.loads(schema.read_text())
    kind = jsonschema.validators.validator_for(rules)
    for error in sorted(kind(rules).iter_errors(document), key=str):
        place = ".".join(str(part) for part in error.absolute_path)
        yield f"{where}{place or 'document'}: {error.message[:200]}"


def _launcher(document: dict[str, Any]) -> Iterator[str]:
    schema = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    yield from _schema(document, schema)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in document.get(key, []):
            if "ray start" not in command:
                continue
            if "RAY_AUTH_MODE=token" not in command:
                yield f"{key}: starts Ray without RAY_AUTH_MODE=token"
            if "--head" in command and "--dashboard-host=127.0.0.1" not in command:
                yield f"{key}: the dashboard must listen on 127.0.0.1 alone"
    if document.get("provider", {}).get("type") == "aws":
        if not document["provider"].get("use_internal_ips"):
            yield "provider.use_internal_ips: must be true: no node gets a public address"
        for name, group in document.get("available_node_types", {}).items():
            if not group.get("node_config", {}).get("SecurityGroupIds"):
                yield f"available_node_types.{name}: names no security group; Ray's own opens SSH to the world"


def _ray_resource(document: dict[str, Any]) -> Iterator[str]:
    yield from _schema(document, HERE / "schemas" / "ray.json")
    spec = document.get("spec", {})
    cluster = spec.get("rayClusterSpec", {}) if document.get("kind") == "RayJob" else spec
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode: must be token"
    head = cluster.get("headGroupSpec", {})
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield "headGroupSpec: must not be reachable from outside the cluster"
    is_queued = "kueue.x-k8s.io/queue-name" in document["metadata"].get("labels", {})
    admissible = (
        spec.get("suspend") and spec.get("shutdownAfterJobFinishes") and not spec.get("clusterSelector")
    )
    if document.get("kind") == "RayJob" and is_queued and not admissible:
        yield "spec: Kueue needs suspend and shutdownAfterJobFinishes, and no clusterSelector"
    for group in (head, *cluster.get("workerGroupSpecs", [])):
        name = group.get("groupName", "head")
        template = group.get("template", {})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template.get("metadata", {})}}
        yield from _kubernetes({**pod, "spec": template.get("spec", {})}, f"{name}: ")


def _kubernetes(document: dict[str, Any], where: str = "") -> Iterator[str]:
    where = where or f"{document.get('kind', '?')}: "
    try:
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as err:
        yield f"{where}{'.'.join(map(str, err.path)) or 'document'}: {err.message[:200]}"
    except (kubernetes_validate.SchemaNotFoundError, KeyError) as err:
        yield f"{where}not a known Kubernetes resource: {err}"
    if document.get("kind") == "Secret":
        yield f"{where}a Secret does not belong in a file; make it with a command"
    if document.get("kind") == "Service" and document["spec"].get("type", "ClusterIP") != "ClusterIP":
        yield f"{where}must not be reachable from outside the cluster"
    pod = document["spec"] if document.get("kind") == "Pod" else _pod_spec(document)
    if pod is not None:
        yield from _pod(pod, where)


def _pod_spec(document: dict[str, Any]) -> dict[str, Any] | None:
    return document.get("spec", {}).get("template", {}).get("spec") if "spec" in document else None


def _pod(spec: dict[str, Any], where: str) -> Iterator[str]:
    if not spec.get("securityContext", {}).get("runAsNonRoot"):
        yield f"{where}must set securityContext.runAsNonRoot"
    if spec.get("hostNetwork") or spec.get("hostPID"):
        yield f"{where}must not share the node's network or processes"
    for container in spec.get("containers", []):
        name = container.get("name", "?")
        if container.get("securityContext", {}).get("allowPrivilegeEscalation") is not False:
            yield f"{where}{name}: must set allowPrivilegeEscalation: false"
        if not {"cpu", "memory"} <= set(container.get("resources", {}).get("limits", {})):
            yield f"{where}{name}: must limit cpu and memory"
        for variable in container.get("env", []):
            if _SECRET_NAME.search(variable.get("name", "")) and "value" in variable:
                yield f"{where}{name}: {variable['name']} must come from a Secret"


def _compose(document: dict[str, Any]) -> Iterator[str]:
    yield from _schema(document, HERE / "schemas" / "compose.json")
    for name, service in document.get("services", {}).items():
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"services.{name}.ports: {port} must be published on 127.0.0.1"
        for variable in service.get("environment", {}):
            if _SECRET_NAME.search(variable) and not variable.endswith(("_FILE", "_DESERIALIZATION")):
                yield f"services.{name}.environment: {variable} must come from a secret file"
        for secret in service.get("secrets", []):
            if secret not in document.get("secrets", {}):
                yield f"services.{name}.secrets: {secret} is not defined"


def _shell(path: Path) -> Iterator[str]:
    tool = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    done = subprocess.run([tool, "--format=gcc", str(path)], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        yield line.split(":", 1)[-1].strip()
    syntax = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    if syntax.returncode:
        yield f"bash: {syntax.stderr.strip()}"


def _containerfile(text: str) -> Iterator[str]:
    lines = [
        line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"
    ]
    for line in lines:
        word, _, rest = line.partition(" ")
        if word not in {
            "FROM",
            "RUN",
            "WORKDIR",
            "COPY",
            "USER",
            "ENV",
            "ENTRYPOINT",
            "CMD",
            "ARG",
            "EXPOSE",
        }:
            yield f"unknown instruction {word}"
        if word == "FROM" and (":" not in rest.split("/")[-1] or rest.endswith(":latest")):
            yield f"FROM {rest}: must name a version"
        if word in ("ENV", "ARG") and _SECRET_NAME.search(rest.replace("RAY_AUTH_MODE=token", "")):
            yield f"{word}: an image holds no secret"
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    if not users or users[-1] in ("root", "0"):
        yield "must end with a USER that is not root"


def _policy(document: dict[str, Any]) -> Iterator[str]:
    if document.get("Version") != "2012-10-17":
        yield "Version: must be 2012-10-17"
    for statement in document.get("Statement", []):
        actions = statement.get("Action")
        actions = [actions] if isinstance(actions, str) else actions
        if statement.get("Effect") not in ("Allow", "Deny") or not actions or not statement.get("Resource"):
            yield f"{statement.get('Sid')}: needs Effect, Action and Resource"
        elif statement["Effect"] == "Allow" and any("*" in action for action in actions):
            yield f"{statement.get('Sid')}: must name the actions it allows"


def main() -> None:
    """Print the faults and exit with 1 when there are any."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    faults = list(faults_of(root))
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
