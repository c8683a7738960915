"""How well the test targets of a synthetic log can be ranked at all."""

from pathlib import Path

from glintru_model.config import EvaluationConfig
from glintru_model.layout import ORACLE_FILE


def rank_by_truth(interactions_dir: Path, dataset_dir: Path, config: EvaluationConfig) -> dict[str, float] | None:
    """Rank the test targets by the true probabilities, where the log is synthetic: the best any model can reach.

    Args:
        interactions_dir: what `ingest` wrote.
        dataset_dir: what `build_sequences` wrote.
        config: cutoffs and candidates.

    Returns:
        The metrics; None where nobody knows the truth.
    """
    oracle_path = interactions_dir / ORACLE_FILE
    if not oracle_path.exists():
        return None
    from glintru_model.data.sequences import load_sequences
    from glintru_model.data.synthetic import OracleScorer
    from glintru_model.evaluation.evaluate import mean_metrics

    dataset = load_sequences(dataset_dir)
    return mean_metrics(OracleScorer.load(oracle_path, dataset.vocabulary), dataset, "test", config)
