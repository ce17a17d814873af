#!/bin/sh
# Make a virtual environment with this project in it, or renew one: environment.sh PYTHON VENV [EXTRAS]
#
# `make` calls it. An interpreter that cannot be used is refused in one line, before anything is written.
# TORCH_INDEX, if set, is one more package index, for the builds of torch that PyPI lacks; INSTALLER is uv or pip.
set -eu
cd "$(dirname "$0")/.."
python=$1 venv=$2 extras=${3:-}

fail() {
    printf 'environment: %s\n' "$1" >&2
    exit 1
}

bounds=$(sed -n 's/^requires-python = ">=3\.\([0-9]*\),<3\.\([0-9]*\)"$/\1 \2/p' pyproject.toml)
first=${bounds% *} last=$((${bounds#* } - 1))

# The supported interpreters on this machine as a remedy, the newest first.
remedy() {
    minor=$last
    while [ "$minor" -ge "$first" ]; do
        if "python3.$minor" -c "import venv" 2>/dev/null; then
            printf 'use the one that is here: make PYTHON=python3.%s ...' "$minor"
            return
        fi
        minor=$((minor - 1))
    done
    printf 'install one and name it: make PYTHON=python3.%s ...' "$last"
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "$python does not run; Python 3.$first to 3.$last is needed: $(remedy)"
minor=${version#3.}
if [ "${version%%.*}" != 3 ] || [ "$minor" -lt "$first" ] || [ "$minor" -gt "$last" ]; then
    fail "$python is Python $version; Python 3.$first to 3.$last is needed: $(remedy)"
fi
case "$(uname -s) $(uname -m)" in
    "Darwin x86_64") fail "torch has no builds for Macs with Intel processors; use Linux or a Mac with Apple silicon" ;;
esac
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make an environment, it lacks venv or ensurepip; install them (Debian, Ubuntu: apt install python3-venv)"

if [ -z "$extras" ] || [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv"
fi
installer=$(sh infra/installer.sh "$venv/bin/python")
what=${extras:+[$extras]}
echo "environment: $installer installs orchestrator$what into $venv; this takes minutes the first time" >&2
if [ -z "$extras" ] && [ -z "${TORCH_INDEX:-}" ] && [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
    echo "environment: no GPU is seen here; the CPU build of torch saves over 4 GB (docs/environment.md)" >&2
fi
if [ "$installer" = uv ]; then
    set -- uv pip install --python "$venv/bin/python" ${TORCH_INDEX:+--index-strategy unsafe-best-match}
else
    set -- "$venv/bin/python" -m pip install
fi
"$@" --quiet ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint constraints.txt --editable ".$what"
