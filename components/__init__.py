"""Thin Kubeflow Pipelines components, one per file; each calls one stage of `glintru_model`."""
