#!/usr/bin/env bash
# From nothing to a cluster on this machine: kind, Kubeflow Pipelines, MLflow with PostgreSQL and SeaweedFS, the images.
set -euo pipefail
source "$(dirname "$0")/../common.sh"

need docker "https://docs.docker.com/engine/install/"
need kind "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
need kubectl "https://kubernetes.io/docs/tasks/tools/"
docker version >/dev/null 2>&1 || fail "no Docker daemon answers; start it, or set DOCKER_HOST"

cluster=glintru context=kind-glintru
"$root/infra/image/build.sh"
task_image=$("$root/infra/image/build.sh" name)
server_image=$("$root/infra/image/build.sh" server-name)

if ! kind get clusters 2>/dev/null | grep -qx "$cluster"; then
  say "kind cluster $cluster"
  kind create cluster --config "$root/infra/kind/cluster.yaml" --image "$KIND_NODE_IMAGE" --wait 5m
fi
say "loading $task_image and $server_image"
kind load docker-image --name "$cluster" "$task_image" "$server_image"

apply_kfp "$context"
KFP_NAMESPACE='' OVERLAY=kind CONTEXT=$context SERVER_IMAGE=$server_image "$root/infra/deploy.sh"
say "waiting for Kubeflow Pipelines (minutes: its images are pulled)"
kubectl --context "$context" --namespace kubeflow wait deployment --all --for=condition=Available --timeout=20m

mkdir -p "$root/build"
cat >"$root/build/kind.mk" <<K
# Written by make kind-up, read by make when RUNNER=kfp; make kind-down removes it.
KFP_HOST ?= http://localhost:8080
MLFLOW_URL ?= http://localhost:5000
PROFILE ?= kind
IMAGE ?= $task_image
K
cat <<M

Kubeflow Pipelines  http://localhost:8080
MLflow              http://localhost:5000
run the pipeline    make pipeline-run RUNNER=kfp
end                 make kind-down
M
