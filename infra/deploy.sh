#!/usr/bin/env bash
# Applies an overlay to the current (or CONTEXT's) cluster, on which Kubeflow Pipelines runs already.
#   OVERLAY=gpu [REGISTRY=host/path] [CONTEXT=name] [WITH_KFP=1] [KFP_NAMESPACE=profile] infra/deploy.sh
# KFP_NAMESPACE: the namespace that tasks run in, where Kubeflow Pipelines is multi-user.
set -euo pipefail
source "$(dirname "$0")/common.sh"

overlay=${OVERLAY:-gpu}
[[ -f $root/infra/kustomize/overlays/$overlay/kustomization.yaml ]] ||
  fail "OVERLAY is '$overlay', allowed: $(ls "$root/infra/kustomize/overlays" | paste -sd' ')"
need kubectl "https://kubernetes.io/docs/tasks/tools/"
context=${CONTEXT:-$(kubectl config current-context 2>/dev/null)} || fail "no Kubernetes context: set CONTEXT or KUBECONFIG"
kubectl() { command kubectl --context "$context" --request-timeout=60s "$@"; }
kubectl version >/dev/null 2>&1 || fail "the cluster of context '$context' does not answer"

if [[ -n ${WITH_KFP:-} ]]; then apply_kfp "$context"; fi
kubectl get namespace kubeflow >/dev/null 2>&1 ||
  fail "namespace 'kubeflow' is missing in context '$context': install Kubeflow Pipelines first (WITH_KFP=1 does)"

server_image=${SERVER_IMAGE:-$(REGISTRY=${REGISTRY:-} "$root/infra/image/build.sh" server-name)}
manifests=$(render "$overlay" "$server_image")

tasks=${KFP_NAMESPACE:-kubeflow}
kubectl get namespace "$tasks" >/dev/null 2>&1 || fail "namespace '$tasks' is missing in context '$context': check KFP_NAMESPACE"

if [[ $overlay != kind ]]; then # there, secrets are in the overlay
  if grep -qE 'mlflow\.example\.com|s3://example-mlflow' <<<"$manifests"; then
    fail "overlay $overlay still has example names: write yours into infra/kustomize/overlays/$overlay/kustomization.yaml"
  fi
  kubectl create namespace glintru --dry-run=client -o yaml | kubectl apply -f - >/dev/null
  wanted="glintru/mlflow glintru/auth-proxy glintru/mlflow-tls $tasks/glintru-credentials"
  if grep -q '^kind: StatefulSet' <<<"$manifests"; then wanted+=" glintru/postgres"; fi
  missing=()
  for secret in $wanted; do
    kubectl --namespace "${secret%/*}" get secret "${secret#*/}" >/dev/null 2>&1 || missing+=("$secret")
  done
  [[ ${#missing[@]} -eq 0 ]] || fail "missing secrets (namespace/name): ${missing[*]}; the README says what each holds"
fi

say "overlay $overlay with $server_image, to context $context"
kubectl apply -f - <<<"$manifests"
if [[ $tasks != kubeflow ]]; then # network policies let its tasks in by this label
  kubectl label namespace "$tasks" glintru.dev/tasks=true --overwrite
fi
if grep -q '^kind: StatefulSet' <<<"$manifests"; then
  kubectl --namespace glintru rollout status statefulset/postgres --timeout=10m --request-timeout=0
fi
kubectl --namespace glintru rollout status deployment/mlflow --timeout=10m --request-timeout=0
