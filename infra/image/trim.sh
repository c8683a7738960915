#!/bin/sh
# Takes out of an environment what a task never opens, then imports what a task does open: that proves that it is
# all still there, and leaves bytecode of these modules alone (no other user of the image could write it).
#   trim.sh /opt/venv
set -eu
cd "$1"/lib/python3*/site-packages

# tests of libraries; numpy's own testing module imports from its tests
find . -depth -type d \( -name tests -o -name test \) -not -path './numpy/*' -not -path './torch/*' -exec rm -rf {} +
# torch's C++ headers and test programs; torch_shm_manager moves tensors between processes
rm -rf torch/include torch/share
find torch/bin torch/lib -type f \( -name '*test*' -o -name '*Test' -o -name 'protoc*' \) -delete
# symbols that only a debugger reads: a fifth of torch
strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so pyarrow/libarrow.so.* pyarrow/libparquet.so.*
# Arrow's RPC server
rm -f pyarrow/libarrow_flight* pyarrow/libarrow_python_flight* pyarrow/_flight*
rm -rf pyarrow/include pyarrow/src plotly/labextension plotly/package_data/widgetbundle.js
# descriptions of AWS services other than the object store and how one signs in there
find botocore/data -mindepth 1 -maxdepth 1 -type d \
  -not -name s3 -not -name sts -not -name sso -not -name sso-oidc -not -name signin -exec rm -rf {} +
find . -name '*.pyi' -delete
find . -depth -type d -name __pycache__ -exec rm -rf {} +
PYTHONDONTWRITEBYTECODE=1 "$1/bin/python" -m pip uninstall --yes --quiet pip setuptools

_KFP_RUNTIME=true "$1/bin/python" - <<'PY'
import boto3
import duckdb
import jinja2
import mlflow.pyfunc
import optuna
import pandas
import plotly.graph_objects
import psutil
import psycopg
import pyarrow.dataset
import scipy.stats
import torch.nn.functional
from kfp.dsl import executor_main
from mlflow import MlflowClient

import components.run_stage
import glintru_model.stages
import glintru_model.outcome
import glintru_model.data.build
import glintru_model.evaluation.report
import glintru_model.serving.registry
import glintru_model.tuning.report
import glintru_model.tuning.worker
import glintru_model.training.launcher
import glintru_model.training.trainer

boto3.client("s3", region_name="us-east-1")
PY
