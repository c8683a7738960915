#!/usr/bin/env bash
# Builds the images of the pipeline's tasks and of the MLflow server; the tag is version + git commit.
#   infra/image/build.sh [task|server|name|server-name]     default: task and server; `name` prints the task image's name
# Environment:
#   ACCELERATOR=cpu|cuda   REGISTRY=host/path (prefix of the names)   PUSH=1 (push after building)
#   PIP_CONF=path          pip's configuration while building, as a build secret
#   BASE_IMAGE, TORCH_CPU_INDEX   the Dockerfile's build arguments, where its defaults do not fit
#   DOCKER_BUILD_OPTIONS   further options of `docker build`
set -euo pipefail
cd "$(dirname "$0")/../.."

accelerator=${ACCELERATOR:-cpu}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' glintru_model/__init__.py)
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || true)
tag=$version${commit:+-$commit}
if [[ -n $commit && -n $(git status --porcelain --untracked-files=no) ]]; then tag+=-dirty; fi
prefix=${REGISTRY:+${REGISTRY%/}/}
task_image=${prefix}glintru-pipeline-python:$tag
[[ $accelerator == cuda ]] && task_image+=-cuda
server_image=${prefix}glintru-mlflow:$tag

fail() { echo "error: $*" >&2; exit 2; }

build() { # target image
  local options=(--file infra/image/Dockerfile --target "$1" --tag "$2" --build-arg "REVISION=$commit")
  [[ $1 == task ]] && options+=(--build-arg "ACCELERATOR=$accelerator")
  [[ -n ${BASE_IMAGE:-} ]] && options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
  [[ $1 == task && -n ${TORCH_CPU_INDEX+set} ]] && options+=(--build-arg "TORCH_CPU_INDEX=$TORCH_CPU_INDEX")
  [[ -n ${PIP_CONF:-} ]] && options+=(--secret "id=pip_conf,src=$PIP_CONF")
  # shellcheck disable=SC2086 - several options in one variable
  DOCKER_BUILDKIT=1 "$docker" build "${options[@]}" ${DOCKER_BUILD_OPTIONS:-} .
  echo "built $2 ($(($("$docker" image inspect --format '{{.Size}}' "$2") / 1000000)) MB)"
  if [[ -n ${PUSH:-} ]]; then "$docker" push "$2"; fi
}

what=${1:-all}
case $what in
  name) echo "$task_image"; exit ;;
  server-name) echo "$server_image"; exit ;;
  all | task | server) ;;
  *) fail "unknown image '$what', allowed: task, server, name, server-name" ;;
esac
case $accelerator in cpu | cuda) ;; *) fail "ACCELERATOR is '$accelerator', allowed: cpu, cuda" ;; esac
docker=${DOCKER:-docker}
command -v "$docker" >/dev/null || fail "docker is not installed; see https://docs.docker.com/engine/install/"
"$docker" version >/dev/null 2>&1 || fail "no Docker daemon answers; start it, or set DOCKER_HOST"
if [[ $what != server ]]; then build task "$task_image"; fi
if [[ $what != task ]]; then build server "$server_image"; fi
