"""Registered versions, loaded back as MLflow loads them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glintru_model.serving.recommender import Recommender


def test_package_stands_alone_and_holds_no_pickle(packed):
    root = Path(packed["packed-int"])
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert "artifacts/model/model.safetensors" in files
    assert "code/glintru_model/serving/recommender.py" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"))]
    requirements = (root / "requirements.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in requirements} >= {"torch", "numpy", "pyarrow", "safetensors", "mlflow"}
    assert all("==" in line and "+" not in line for line in requirements)


def test_loaded_model_ranks_as_the_model_on_disk(packed, glintru_dir, sasrec_dir):
    import mlflow
    import pandas as pd

    for name, directory, histories in (
        ("packed-int", glintru_dir, [[100, 101, 5], [], [129] * 20]),
        ("packed-text", sasrec_dir, [["B001", "B002"], ["?"], []]),
    ):
        model = mlflow.pyfunc.load_model(packed[name])
        exclude = histories[0][:1]
        params = {"k": 7, "filter_seen": False, "exclude": exclude}
        answer = model.predict(pd.DataFrame({"history": histories}), params=params)
        expected = Recommender.load(directory).recommend(histories, 7, filter_seen=False, exclude=exclude)
        assert answer.to_dict("records") == [vars(row) for row in expected]
        plain = model.predict([{"history": histories[0]}])
        assert plain.item_ids[0] == Recommender.load(directory).recommend(histories[:1])[0].item_ids


@pytest.mark.parametrize(
    ("rows", "params", "message"),
    [
        ({"history": [[100]]}, {"k": 31}, r"k 31, allowed: 1\.\.30"),
        ({"history": [[100]]}, {"k": -1}, r"k -1, allowed"),
        ({"history": [[100]]}, {"k": "many"}, "k"),
        ({"history": [[100]]}, {"exclude": ["x"]}, "exclude"),
        ({"history": [["B001"]]}, {}, "history"),
        ({"history": [None]}, {}, "history"),
        ({"items": [[100]]}, {}, "history"),
    ],
)
def test_bad_request_is_refused_by_the_loaded_model(packed, rows, params, message):
    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(packed["packed-int"])
    with pytest.raises(MlflowException, match=message):
        model.predict(pd.DataFrame(rows), params=params)


LOAD_ALONE = """
import importlib.abc, json, sys
from importlib import metadata
from packaging.requirements import Requirement

allowed, todo = set(), ["torch", "numpy", "pyarrow", "mlflow", "safetensors"]  # the last: the weights' own format
while todo:
    name = todo.pop().lower().replace("_", "-")
    if name in allowed:
        continue
    allowed.add(name)
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        continue
    todo += [r.name for r in map(Requirement, wanted) if r.marker is None or r.marker.evaluate({"extra": ""})]

class Blocker(importlib.abc.MetaPathFinder):
    owners = metadata.packages_distributions()
    def find_spec(self, name, path=None, target=None):
        found = {owner.lower().replace("_", "-") for owner in self.owners.get(name, [])}
        if "." not in name and name != "glintru_model" and found and not found & allowed:
            raise ModuleNotFoundError(f"blocked: {name} of {found}", name=name)

sys.meta_path.insert(0, Blocker())
for name in ("optuna", "kfp", "duckdb", "plotly", "boto3"):
    try:
        __import__(name)
    except ImportError as error:
        assert "blocked" in str(error)
    else:
        raise AssertionError(f"{name} is not blocked")
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
import glintru_model
answer = model.predict(pd.DataFrame({"history": [[100, 101]]}), params={"k": 3})
print(json.dumps([glintru_model.__file__, answer.item_ids[0]]))
"""


@pytest.mark.slow
def test_loads_from_its_own_source_with_torch_numpy_pyarrow_and_mlflow_alone(packed, glintru_dir, tmp_path):
    command = [sys.executable, "-c", LOAD_ALONE, packed["packed-int"]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    source, item_ids = json.loads(done.stdout.splitlines()[-1])
    assert source.startswith(packed["packed-int"])
    assert item_ids == Recommender.load(glintru_dir).recommend([[100, 101]], 3)[0].item_ids
