"""Fails unless the quickstart has left what it promises: both models registered, both far above popularity."""

import json
import sys
from pathlib import Path

from mlflow import MlflowClient

FRACTION_OF_CEILING = 0.8


def main(runs_dir: Path) -> None:
    """Look at the registry and at the run's summary."""
    client = MlflowClient(f"sqlite:///{runs_dir / 'mlflow.db'}")
    (summary_path,) = runs_dir.glob("quickstart-*/summary.json")
    summary = json.loads(summary_path.read_text())
    ceiling = summary["ceiling"]["ndcg_at_10"]
    for name in ("glintru", "sasrec"):
        version = client.get_model_version_by_alias(f"quickstart-{name}", "champion")
        reached = summary["models"][name]["metrics"]["ndcg_at_10"]["value"]
        if not reached > FRACTION_OF_CEILING * ceiling:
            sys.exit(
                f"{name}: test NDCG@10 {reached:.4f} is not above {FRACTION_OF_CEILING} of the ceiling {ceiling:.4f}"
            )
        print(f"{name}: version {version.version} is champion, {reached / ceiling:.0%} of the ceiling")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
