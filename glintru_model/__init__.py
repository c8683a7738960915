"""Training pipeline for two sequential recommenders, GLINT-RU and SASRec."""

__version__ = "0.1.0"
