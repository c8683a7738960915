# Sourced by the scripts beside it.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=infra/versions.env
source "$root/infra/versions.env"

say() { echo "== $*"; }
fail() { echo "error: $*" >&2; exit 2; }
need() { command -v "$1" >/dev/null || fail "$1 is not installed: $2"; }

apply_kfp() { # context
  local manifests=github.com/kubeflow/pipelines/manifests/kustomize
  say "Kubeflow Pipelines $KFP_VERSION, from its upstream manifests"
  kubectl --context "$1" apply -k "$manifests/cluster-scoped-resources?ref=$KFP_VERSION"
  kubectl --context "$1" wait crd --all --for condition=established --timeout=60s
  kubectl --context "$1" apply -k "$manifests/env/platform-agnostic?ref=$KFP_VERSION"
}

render() { # overlay server-image: the overlay with the server image's full name, on stdout
  local folder
  folder=$(mktemp -d "$root/infra/kustomize/.render.XXXXXX")
  trap 'rm -rf "$folder"' RETURN
  cat >"$folder/kustomization.yaml" <<K
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../overlays/$1]
images:
- name: glintru-mlflow
  newName: ${2%:*}
  newTag: ${2##*:}
K
  kubectl kustomize "$folder"
}
