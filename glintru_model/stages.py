"""One function per pipeline step: paths and settings in, files and MLflow records out.

A Kubeflow component and the command line call the same function; nothing here knows either of them.
Settings arrive as JSON text, the form in which a pipeline parameter travels unchanged. Each stage imports
what it uses when it is called: a step that only hashes a file does not wait for torch. The steps up to the sequences
stand in `stages_data`.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from glintru_model.config import EvaluationConfig, RegistryConfig, TuningConfig
from glintru_model.config_io import parse, parse_recommender
from glintru_model.errors import DataError, TrackingError
from glintru_model.files import read_json, write_json
from glintru_model.layout import TRAINING_FILE, VOCABULARY_FILE
from glintru_model.progress import say
from glintru_model.stages_data import build_sequences, ingest, resolve_source

if TYPE_CHECKING:
    from glintru_model.config import GlintruRecommender, SasrecRecommender
    from glintru_model.data.sequences import SequenceDataset
    from glintru_model.models.base import SequentialRecommender
    from glintru_model.tracking import RunRef, Tracker
    from glintru_model.training.results import EpochResult

__all__ = [
    "build_sequences",
    "compare_and_register",
    "create_study",
    "evaluate",
    "ingest",
    "resolve_source",
    "select_hyperparameters",
    "start_run",
    "train",
    "tune",
]


def start_run(
    run_name: str,
    experiment: str,
    tracking_uri: str,
    artifact_location: str,
    git_commit: str,
    settings: str,
    run_path: str,
) -> None:
    """Open the pipeline run's parent run in MLflow and leave a reference to it in `run_path`.

    Raises:
        TrackingError: no tracking server is named, or it does not answer.
    """
    from glintru_model import tracking

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise TrackingError("no MLflow server: give tracking_uri or set MLFLOW_TRACKING_URI")
    run = tracking.open_pipeline_run(
        uri, experiment, artifact_location, run_name, tags={"git_commit": git_commit}, params={}
    )
    tracking.log_settings(run, settings)
    run.write(Path(run_path))
    say(f"MLflow experiment {experiment!r}, run {run_name!r}")


def create_study(
    recommender: str, tuning: str, run_name: str, study_storage: str, run_path: str, study_path: str
) -> None:
    """Create a model's study and its MLflow run before the workers start; leave name and storage in `study_path`.

    Raises:
        TrackingError: the study's storage is not reachable.
    """
    from glintru_model.tuning.study import open_study
    from glintru_model.tuning.worker import open_tune_run

    config = parse_recommender(recommender, "recommender")
    name = f"{run_name}-{config.name}"
    open_study(study_storage, name, parse(TuningConfig, tuning, "tuning"), config)
    open_tune_run(_run(run_path), config)
    write_json(Path(study_path), {"storage": study_storage, "name": name})


def tune(
    recommender: str,
    tuning: str,
    evaluation: str,
    worker: int,
    study_path: str,
    dataset_dir: str,
    run_path: str,
    trials_path: str,
) -> None:
    """Run trials until the study's budget is spent; leave this worker's count in `trials_path`."""
    from glintru_model.data.sequences import load_sequences
    from glintru_model.tuning.worker import run_worker

    config, settings = parse_recommender(recommender, "recommender"), parse(TuningConfig, tuning, "tuning")
    threads = config.training.model_copy(update={"num_threads": settings.num_threads})
    study, dataset = read_json(Path(study_path)), load_sequences(Path(dataset_dir))
    count = run_worker(
        config.model_copy(update={"training": threads}),
        dataset,
        settings,
        storage=study["storage"],
        study_name=study["name"],
        worker=worker,
        validate=_validation(dataset, parse(EvaluationConfig, evaluation, "evaluation")),
        tracker_parent=_run(run_path),
    )
    write_json(Path(trials_path), {"worker": worker, "trials": count})


def select_hyperparameters(
    recommender: str, study_path: str, trials_paths: list[str], run_path: str, best_path: str, report_path: str
) -> None:
    """Leave the best configuration and the table of all trials in `best_path`, the study's plots in `report_path`.

    Raises:
        TrainingError: no trial has completed.
    """
    from glintru_model.tracking import child_run
    from glintru_model.tuning.report import write_study_report
    from glintru_model.tuning.study import best_recommender

    config, study = parse_recommender(recommender, "recommender"), read_json(Path(study_path))
    workers = [read_json(Path(path)) for path in trials_paths]
    best, trials = best_recommender(study["storage"], study["name"], config)
    say(f"tune {config.name}: {sum(w['trials'] for w in workers)} trials by {len(workers)} workers")
    write_json(Path(best_path), {"recommender": best.model_dump(), "trials": trials})
    write_study_report(Path(report_path), study["storage"], study["name"], config.name)
    with child_run(_run(run_path), f"tune {config.name}", {}) as tracker:
        tracker.log_text_file(Path(report_path), f"tuning-{config.name}.html")


def train(evaluation: str, best_path: str, dataset_dir: str, run_path: str, model_dir: str) -> dict[str, float]:
    """Train the chosen configuration in full into `model_dir`; return the best epoch's validation metrics.

    With several GPUs, or `training.num_processes`, torchrun calls this function anew in that many processes; the first
    alone writes and is tracked, and the others return nothing.

    Raises:
        TrainingError: the loss is not finite, or a process died.
    """
    from glintru_model.data.sequences import load_sequences
    from glintru_model.data.trained_events import write_trained_events
    from glintru_model.models.files import save_model
    from glintru_model.tracking import NullTracker, child_run
    from glintru_model.training import distributed
    from glintru_model.training.trainer import train as train_model

    config = _chosen(Path(best_path))
    if (processes := distributed.processes_to_launch(config.training)) > 1:
        from glintru_model.training.launcher import launch

        return launch(train, evaluation, best_path, dataset_dir, run_path, model_dir, processes=processes)
    dataset, output = load_sequences(Path(dataset_dir)), Path(model_dir)
    validate = _validation(dataset, parse(EvaluationConfig, evaluation, "evaluation"))
    tracked = child_run(_run(run_path), config.name, {"kind": "model", "model": config.name}, system_metrics=True)
    with tracked if distributed.is_first() else nullcontext(NullTracker()) as run:
        run.log_params(config.model_dump())
        run.log_dataset(dataset.manifest)
        on_epoch = partial(_log_epoch, run)
        checkpoints = output.with_name(f"{output.name}.checkpoints")
        model, result = train_model(config, dataset, validate=validate, on_epoch=on_epoch, checkpoint_dir=checkpoints)
        if not distributed.is_first():
            return {}
        save_model(model, config, Path(dataset_dir) / VOCABULARY_FILE, output)
        write_json(output / TRAINING_FILE, asdict(result))
        shutil.rmtree(checkpoints)
        run.log_metrics({f"best/val/{name}": value for name, value in result.best_metrics.items()})
        run.log_artifact(write_trained_events(dataset, output))
        run.log_text_file(output / TRAINING_FILE, TRAINING_FILE)
    return {f"val_{name}": value for name, value in result.best_metrics.items()}


def evaluate(
    evaluation: str, model_dir: str, dataset_dir: str, run_path: str, output_dir: str, report_path: str
) -> dict[str, float]:
    """Rank the catalogue for every test target into `output_dir`; write the report; return the main figures."""
    from glintru_model.data.sequences import load_sequences
    from glintru_model.evaluation.evaluate import evaluate_model
    from glintru_model.evaluation.report import write_evaluation_report
    from glintru_model.evaluation.result import METRICS_FILE
    from glintru_model.models.files import load_model
    from glintru_model.models.scorer import ModelScorer
    from glintru_model.tracking import child_run

    dataset, output = load_sequences(Path(dataset_dir)), Path(output_dir)
    model, config = load_model(Path(model_dir))
    result = evaluate_model(ModelScorer(model), dataset, "test", parse(EvaluationConfig, evaluation, "evaluation"))
    result.write(output)
    training = read_json(Path(model_dir) / TRAINING_FILE)
    write_evaluation_report(Path(report_path), config.name, output, training)
    figures = {name: metric.value for name, metric in result.metrics.items()}
    with child_run(_run(run_path), config.name, {"kind": "model", "model": config.name}) as run:
        run.log_metrics({f"test/{name}": value for name, value in figures.items()})
        for bound in ("low", "high"):
            run.log_metrics({f"test {bound}/{name}": getattr(found, bound) for name, found in result.metrics.items()})
        run.log_text_file(Path(report_path), f"evaluation-{config.name}.html")
        run.log_text_file(output / METRICS_FILE, f"evaluation-{config.name}.json")
    say(f"evaluate {config.name}: test NDCG@10 {figures['ndcg_at_10']:.4f}, Recall@10 {figures['recall_at_10']:.4f}")
    return figures


def compare_and_register(
    registry: str,
    interactions_dir: str,
    dataset_dir: str,
    run_path: str,
    models: dict[str, tuple[str, str, str]],
    summary_path: str,
    report_path: str,
) -> None:
    """Compare the models on the same users, register each once, write summary and report, close the run.

    Args:
        registry: `RegistryConfig` as JSON.
        interactions_dir: what `ingest` wrote.
        dataset_dir: what `build_sequences` wrote.
        run_path: reference to the pipeline run in MLflow.
        models: for each model the paths of its tuning result, its trained model and its evaluation.
        summary_path: the JSON file to write.
        report_path: the HTML file to write.
    """
    from glintru_model.outcome import Candidate, conclude

    conclude(
        parse(RegistryConfig, registry, "registry"),
        Path(interactions_dir),
        Path(dataset_dir),
        _run(run_path),
        {name: Candidate(*map(Path, paths)) for name, paths in models.items()},
        Path(summary_path),
        Path(report_path),
    )


def _log_epoch(run: "Tracker", result: "EpochResult") -> None:
    metrics = {f"val/{name}": value for name, value in result.validation.items()}
    curve = {"train/loss": result.train_loss, "train/targets_per_second": result.targets_per_second}
    run.log_metrics({**metrics, **curve}, step=result.epoch)


def _run(run_path: str) -> "RunRef":
    from glintru_model.tracking import RunRef

    return RunRef.read(Path(run_path)) if run_path else RunRef()


def _chosen(best_path: Path) -> "GlintruRecommender | SasrecRecommender":
    """Read the recommender that `select_hyperparameters` chose."""
    chosen = read_json(best_path)
    if not isinstance(chosen, dict) or "recommender" not in chosen:
        raise DataError(f"{best_path}: no 'recommender' in it, expected the result of tuning")
    return parse_recommender(json.dumps(chosen["recommender"]), str(best_path))


def _validation(
    dataset: "SequenceDataset", config: EvaluationConfig
) -> "Callable[[SequentialRecommender], dict[str, float]]":
    """Bind the validation metrics to a dataset: what training and tuning choose by."""
    from glintru_model.evaluation.evaluate import validation_metrics
    from glintru_model.models.scorer import ModelScorer

    return lambda model: validation_metrics(ModelScorer(model), dataset, config)
