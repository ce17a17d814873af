#!/usr/bin/env bash
# Starts the MLflow server of compose.yaml inside its container. Secrets come from files and stay out of the command
# line, where `ps` would show them.
set -euo pipefail

secret() { cat "/run/secrets/$1"; }

export MLFLOW_BACKEND_STORE_URI
MLFLOW_BACKEND_STORE_URI="postgresql://mlflow:$(secret postgres_password)@postgres:5432/mlflow"
export MLFLOW_AUTH_ADMIN_PASSWORD
MLFLOW_AUTH_ADMIN_PASSWORD="$(secret admin_password)"
export MLFLOW_FLASK_SERVER_SECRET_KEY
MLFLOW_FLASK_SERVER_SECRET_KEY="$(secret flask_secret_key)"
export MLFLOW_AUTH_CONFIG_PATH=/tmp/auth.ini

umask 077
cat > "$MLFLOW_AUTH_CONFIG_PATH" << INI
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_BACKEND_STORE_URI}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI

exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers 2 \
  --artifacts-destination "$ARTIFACTS" --serve-artifacts
