"""Every manifest in infra/ passes its schema and our rules, and the rules see what they are meant to see."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
spec = importlib.util.spec_from_file_location("infra_validate", INFRA / "validate.py")
validate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(validate)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(INFRA, tmp_path / "infra")
    return tmp_path / "infra"


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_everything_in_infra_is_valid():
    assert list(validate.faults_of(INFRA)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("ray/aws.yaml", "max_workers: 12", "max_worker: 12", "max_worker"),
        ("ray/aws.yaml", "use_internal_ips: true", "use_internal_ips: false", "public address"),
        ("ray/aws.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "127.0.0.1 alone"),
        (
            "ray/onprem.yaml",
            "RAY_AUTH_MODE=token ray start --address",
            "ray start --address",
            "RAY_AUTH_MODE",
        ),
        ("kuberay/cluster.yaml", "groupName: cpu", "groupname: cpu", "groupname"),
        ("kuberay/cluster.yaml", "mode: token", "mode: disabled", "must be token"),
        ("kuberay/cluster.yaml", 'nvidia.com/gpu: "4"}', "nvidia.com/gpu: [4]}", "resources"),
        ("kuberay/cluster.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("kuberay/cluster.yaml", "tolerations:", "toleration:", "toleration"),
        ("kuberay/job.yaml", "suspend: true", "suspend: false", "Kueue needs"),
        ("kuberay/job.yaml", "submissionMode: HTTPMode", "submissionMode: HttpMode", "HttpMode"),
        ("kuberay/job.yaml", 'rayVersion: "2.60.0"', "rayVersion: 2.6", "not of type 'string'"),
        ("kuberay/queues.yaml", "nominalQuota: 32", "nominalQuota: many", "nominalQuota"),
        ("kuberay/redis.yaml", "replicas: 1", "replicas: one", "replicas"),
        ("kuberay/network.yaml", "protocol: TCP, port: 8265", "protcol: TCP, port: 8265", "protcol"),
        ("mlflow/compose.yaml", "127.0.0.1:5000:5000", "5000:5000", "published on 127.0.0.1"),
        ("mlflow/compose.yaml", "POSTGRES_PASSWORD_FILE", "POSTGRES_PASSWORD", "secret file"),
        ("mlflow/compose.yaml", "retries: 20", "retry: 20", "retry"),
        ("slurm/sweep.sbatch", '"$head_ip:$port" "$@" &', "$head_ip:$port $@ &", "SC2068"),
        ("mlflow/serve.sh", "exec mlflow", "if exec mlflow", "bash"),
        ("image/Containerfile", "USER ray", "USER root", "not root"),
        ("image/Containerfile", "python:3.11-slim-bookworm", "python:latest", "name a version"),
        ("ray/s3-policy.json", '"s3:GetObject",\n', '"s3:*",\n', "name the actions"),
    ],
)
def test_a_mutated_manifest_is_refused(copy, file, old, new, fault):
    change(copy / file, old, new)
    found = list(validate.faults_of_file(copy / file))
    assert any(fault in line for line in found), found


@pytest.mark.parametrize(
    "secret",
    [
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "0123456789abcdef" * 3,
        "postgresql://mlflow:" + "hunter2@db/mlflow",
    ],
)
def test_a_credential_in_any_file_is_found(copy, secret):
    path = copy / "kuberay" / "cluster.yaml"
    path.write_text(f"# {secret}\n{path.read_text()}")
    assert any("line 1: holds" in line for line in validate.faults_of_file(path))


def test_a_secret_in_a_file_is_refused(copy):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "b"}}
    (copy / "kuberay" / "secret.yaml").write_text(yaml.safe_dump(secret))
    assert any("does not belong in a file" in line for line in validate.faults_of(copy))


def test_the_manifests_name_the_ray_version_that_is_installed():
    import ray

    for file in ("cluster.yaml", "job.yaml"):
        assert f'rayVersion: "{ray.__version__}"' in (INFRA / "kuberay" / file).read_text()


def test_the_commands_that_the_manifests_run_exist():
    from orchestrator.cli.main import app_with_commands

    commands = app_with_commands().commands
    assert "drive" in commands["jobs"].commands
    assert {"--sweep-id", "--ray-address", "--set"} <= {
        name for option in commands["jobs"].commands["drive"].params for name in option.opts
    }
    assert "doctor" in commands
