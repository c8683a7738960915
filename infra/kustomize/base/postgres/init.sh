#!/bin/sh
# Runs once, on an empty data folder: two databases, each with its own role that sees only its own.
set -eu
for name in mlflow optuna; do
  case $name in
    mlflow) password=$MLFLOW_DB_PASSWORD ;;
    optuna) password=$OPTUNA_DB_PASSWORD ;;
  esac
  psql --set=ON_ERROR_STOP=1 --set=name="$name" --set=password="$password" \
    --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
