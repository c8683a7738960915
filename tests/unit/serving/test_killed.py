"""A step that is killed (node gone, memory gone) in the midst of registering, and its retry."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glintru_model.config import RegistryConfig
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.registry import register
from glintru_model.tracking import open_pipeline_run
from tests.unit.serving.registering import holder, no_rival

ROOT = Path(__file__).parents[3]
ARGUMENTS = {
    "pipeline_run": "killed",
    "dataset_hash": "d",
    "validation_metrics": {"ndcg_at_10": 0.1},
    "test_metrics": {},
    "tags": {},
}
DIE = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from glintru_model.tracking import RunRef
from tests.unit.serving import test_killed

directory, uri, experiment, run, name, call = sys.argv[1:]
done = getattr(MlflowClient, call)

def die(self, *arguments, **options):
    done(self, *arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(MlflowClient, call, die)
test_killed.register_here(directory, RunRef(uri, experiment, run), name)
"""


def register_here(directory, run, name):
    config = RegistryConfig()
    return register(Path(directory), tracking=run, model_name=name, judge=no_rival, config=config, **ARGUMENTS)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["log_model_artifacts", "set_registered_model_alias"])
def test_retry_of_a_killed_step_registers_one_whole_version(client, uri, glintru_dir, call):
    name = f"killed-{call}"
    run = open_pipeline_run(uri, "registry", "", name, {}, {})
    arguments = [str(glintru_dir), uri, run.experiment_id, run.run_id, name, call]
    killed = subprocess.run([sys.executable, "-c", DIE, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    added = register_here(glintru_dir, run, name)
    assert added == register_here(glintru_dir, run, name)
    assert (added.version, added.alias, added.reason) == ("1", "champion", "the first champion: there was none before")
    (version,) = client.search_model_versions(f"name = '{name}'")
    assert (version.tags["decision"], holder(client, name, "champion")) == ("champion", "1")
    source = Path(version.source.removeprefix("file://"))
    assert Recommender.load(source / "artifacts/model").vocabulary.num_items == 30
    ready = [m for m in client.search_logged_models([run.experiment_id], f"name = '{name}'") if m.status == "READY"]
    assert len(ready) == 1
