#!/usr/bin/env bash
# Makes the secrets of compose.yaml beside it, readable by you alone; what is there already stays.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
for name in postgres_password admin_password flask_secret_key; do
  [ -s "secrets/$name" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "secrets/$name"
done
[ -e secrets/aws_credentials ] || : > secrets/aws_credentials
echo "secrets/ is ready; put an [default] profile for the artifact bucket into secrets/aws_credentials,"
echo "or leave it empty where the machine has a role"
