#!/usr/bin/env bash
# Tells Ray that this spot node will be taken away, so that trials on it write their checkpoints in time.
# AWS gives two minutes of notice through the instance metadata service (version 2, with its session token).
#   bash spot_watch.sh HEAD_IP:6379
set -euo pipefail

head_address="${1:?usage: spot_watch.sh HEAD_IP:PORT}"
metadata="http://169.254.169.254/latest"
poll_s=5
export RAY_AUTH_MODE=token

session() {
  wget --quiet --timeout=2 --tries=1 --method=PUT --output-document=- \
    --header='X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token"
}

notice() {
  wget --quiet --timeout=2 --tries=1 --output-document=- \
    --header="X-aws-ec2-metadata-token: $1" "$metadata/meta-data/spot/instance-action"
}

while true; do
  if token="$(session)" && action="$(notice "$token")"; then
    echo "notice: $action"
    ray drain-node --address "$head_address" --reason DRAIN_NODE_REASON_PREEMPTION \
      --reason-message "spot notice" --deadline-remaining-seconds 110
    exit 0
  fi
  sleep "$poll_s"
done
