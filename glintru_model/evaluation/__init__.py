"""Full ranking, metrics, baselines and their reports."""
