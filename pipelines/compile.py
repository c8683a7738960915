"""Compiles the DAG to the YAML that a local run and a cluster both execute."""

import os
from pathlib import Path

from kfp import compiler

from components.component import IMAGE
from glintru_model import __version__
from glintru_model.config import PipelineConfig
from pipelines.resources import Profile
from pipelines.training_pipeline import build_pipeline


def compile_pipeline(config: PipelineConfig, profile: Profile, path: Path, image: str = "") -> Path:
    """Write the compiled pipeline, whole or not at all.

    Args:
        config: gives the parameters' defaults.
        profile: gives the tasks' resources.
        path: the YAML file.
        image: the image of every task; empty means this version's own tag.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # kfp wants the ending .yaml
    try:
        compiler.Compiler().compile(build_pipeline(config, profile), str(temporary))
        text = temporary.read_text(encoding="utf-8")
        temporary.write_text(
            text.replace(f"image: {IMAGE}\n", f"image: {image or f'{IMAGE}:{__version__}'}\n"), encoding="utf-8"
        )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
