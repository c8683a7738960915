"""One function per pipeline step: paths and settings in, files and MLflow records out.

A Kubeflow component and the command line call the same function; nothing here knows either of them.
Settings arrive as JSON text, the form in which a pipeline parameter travels unchanged.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glintru_model.config import (
    EvaluationConfig,
    IngestConfig,
    RegistryConfig,
    SequencesConfig,
    TuningConfig,
)
from glintru_model.config_io import parse, parse_recommender
from glintru_model.files import read_json, write_json, write_text
from glintru_model.fingerprint import combine, package_fingerprint
from glintru_model.progress import say
