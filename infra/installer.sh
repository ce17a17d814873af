#!/bin/sh
# Say which program installs packages, uv or pip: installer.sh PYTHON
#
# uv is faster, but does not read pip's configuration: another index, a mirror, a proxy or a certificate that pip was
# given would be passed over in silence. So uv is chosen only where pip's configuration and its PIP_* variables, both of
# which `pip config list` shows, hold nothing that changes what is found. INSTALLER=uv or INSTALLER=pip decides otherwise.
set -eu
harmless='cache-dir|default-timeout|timeout|retries|disable-pip-version-check|config-file|quiet|verbose|no-color'
harmless="$harmless|progress-bar|no-input|require-virtualenv|break-system-packages|root-user-action|no-cache-dir"

sees_the_same() {
    configuration=$("$1" -m pip config list) || return 1
    ! printf '%s\n' "$configuration" | grep -v '^$' | grep -qvE "^[^=]*\\.($harmless)="
}

case "${INSTALLER:-}" in
    uv | pip) echo "$INSTALLER" ;;
    "") if command -v uv >/dev/null && sees_the_same "$1"; then echo uv; else echo pip; fi ;;
    *)
        echo "installer: INSTALLER is $INSTALLER; it must be uv or pip, or be left out" >&2
        exit 1
        ;;
esac
