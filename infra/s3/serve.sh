#!/usr/bin/env bash
# An S3 server for development on this machine's loopback: SeaweedFS, from the extra `s3-test`.
#   infra/s3/serve.sh ~/s3 &                       # data and keys below ~/s3
#   source ~/s3/environment                        # AWS_* for this shell
#   orchestrator shards pack photos/ s3://dev/shards && orchestrator sweep masks.yaml --set storage.uri=s3://dev/runs
# The keys are random, made on the first start and kept in files that only you can read.
set -euo pipefail

folder="${1:?usage: serve.sh FOLDER [PORT]}"
port="${2:-18333}"
umask 077
mkdir -p "$folder/data"
folder="$(cd "$folder" && pwd)"
random() { head -c "$1" /dev/urandom | od -An -tx1 | tr -d ' \n'; }

if [ ! -s "$folder/environment" ]; then
  access="$(random 10)"
  secret="$(random 24)"
  cat > "$folder/environment" << ENV
export AWS_ACCESS_KEY_ID=$access
export AWS_SECRET_ACCESS_KEY=$secret
export AWS_DEFAULT_REGION=us-east-1
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
export AWS_EC2_METADATA_DISABLED=true
ENV
  cat > "$folder/s3.json" << JSON
{"identities": [{"name": "dev", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}],
                 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
fi

exec weed mini -dir="$folder/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -webdav=false \
  -admin.ui=false -s3.port="$port" -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$folder/s3.json" \
  -master.port=$((port + 1)) -volume.port=$((port + 2)) -filer.port=$((port + 3)) -admin.port=$((port + 4))
