"""Optuna studies over the recommenders' settings."""
