#!/usr/bin/env bash
# Deletes the cluster of up.sh and everything in it.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
need kind "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
kind delete cluster --name glintru
rm -f "$root/build/kind.mk"
