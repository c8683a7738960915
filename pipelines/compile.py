"""Compiles the DAG to the YAML that a local run and a cluster both execute."""

import os
from pathlib import Path

import yaml
from kfp import compiler

from components.component import IMAGE
from glintru_model.config import PipelineConfig
from pipelines.git import image_tag
from pipelines.resources import Profile
from pipelines.training_pipeline import build_pipeline


def compile_pipeline(
    config: PipelineConfig, profile: Profile, path: Path, image: str = "", *, recurring: bool = False
) -> Path:
    """Write the compiled pipeline, whole or not at all.

    Args:
        config: gives the parameters' defaults.
        profile: gives the tasks' resources.
        path: the YAML file.
        image: the image of every task; empty means the one that `make image` builds from this commit.
        recurring: the backend starts the runs by itself, so each takes the name that it is given there.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # kfp wants the ending .yaml
    try:
        compiler.Compiler().compile(build_pipeline(config, profile, recurring=recurring), str(temporary))
        text = temporary.read_text(encoding="utf-8")
        temporary.write_text(
            text.replace(f"image: {IMAGE}\n", f"image: {image or default_image(profile)}\n"), encoding="utf-8"
        )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def default_image(profile: Profile) -> str:
    """Return the name of the image that `make image` builds from this commit for the profile's nodes."""
    return f"{IMAGE}:{image_tag()}{'-cuda' if profile.gpu_count else ''}"


def task_titles(package: Path) -> dict[str, str]:
    """Map what kfp calls a task (its component) to the display name in a compiled pipeline."""
    spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    dags = [spec["root"]["dag"], *(part["dag"] for part in spec["components"].values() if "dag" in part)]
    tasks = [task for dag in dags for task in dag["tasks"].values()]
    return {task["componentRef"]["name"].removeprefix("comp-"): task["taskInfo"]["name"] for task in tasks}
