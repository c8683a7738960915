"""The end of a pipeline run: both models compared, a registered version of each, the report, the summary."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glintru_model.config import EvaluationConfig, RegistryConfig
from glintru_model.config_io import parse
from glintru_model.contest import make_judge
from glintru_model.data.sequences import SequenceDataset, load_sequences
from glintru_model.evaluation.compare import compare
from glintru_model.evaluation.report import write_run_report
from glintru_model.evaluation.result import read_metrics
from glintru_model.evaluation.wording import baseline_verdict, comparison_verdict
from glintru_model.files import read_json, write_json
from glintru_model.layout import CEILING_FILE, DATA_REPORT_FILE, TRAINING_FILE
from glintru_model.progress import say
from glintru_model.serving.aliases import RegisteredVersion
from glintru_model.serving.registry import register
from glintru_model.tracking import PIPELINE_TAG, MlflowTracker, RunRef, child_run, close_pipeline_run, run_tags


@dataclass(frozen=True)
class Candidate:
    """What the earlier steps left of one model: tuning result, trained model, evaluation."""

    best_path: Path
    model_dir: Path
    evaluation_dir: Path

    @property
    def training(self) -> dict[str, Any]:
        """Learning curves and cost of the training."""
        return dict(read_json(self.model_dir / TRAINING_FILE))


def conclude(
    registry: RegistryConfig,
    interactions_dir: Path,
    dataset_dir: Path,
    run: RunRef,
    candidates: dict[str, Candidate],
    summary_path: Path,
    report_path: Path,
) -> None:
    """Compare, register, write report and summary, and close the pipeline run; each part can be repeated.

    Raises:
        TrackingError: the registry refuses or is not reachable.
        DataError: an earlier step's file is missing.
    """
    dataset = load_sequences(dataset_dir)
    manifest = dataset.manifest
    evaluations = {name: candidate.evaluation_dir for name, candidate in candidates.items()}
    comparison = compare(evaluations)
    versions = {name: _register(registry, name, candidate, dataset, run) for name, candidate in candidates.items()}
    ceiling_path = dataset_dir / CEILING_FILE
    ceiling = dict(read_json(ceiling_path)) if ceiling_path.exists() else None
    write_run_report(
        report_path,
        data_report=read_json(interactions_dir / DATA_REPORT_FILE),
        manifest=manifest,
        ceiling=ceiling,
        studies={name: read_json(candidate.best_path)["trials"] for name, candidate in candidates.items()},
        evaluations=evaluations,
        trainings={name: candidate.training for name, candidate in candidates.items()},
        versions=[{"model": name, **asdict(version)} for name, version in versions.items()],
        comparison=comparison,
    )
    summary = summarise(candidates, versions, comparison, ceiling)
    write_json(summary_path, summary)
    _track(run, summary, report_path, summary_path)


def _register(
    registry: RegistryConfig, name: str, candidate: Candidate, dataset: SequenceDataset, run: RunRef
) -> RegisteredVersion:
    tags = run_tags(run)
    document = read_metrics(candidate.evaluation_dir)
    metrics = document["metrics"]
    evaluation = parse(EvaluationConfig, document["config"], str(candidate.evaluation_dir))
    with child_run(run, name) as tracker:
        version = register(
            candidate.model_dir,
            judge=make_judge(candidate.model_dir, dataset, evaluation, registry),
            config=registry,
            tracking=tracker.ref,
            model_name=registry.prefix + name,
            pipeline_run=tags.get(PIPELINE_TAG, ""),
            dataset_hash=dataset.manifest["dataset_hash"],
            validation_metrics=candidate.training["best_metrics"],
            test_metrics={name: metric["value"] for name, metric in metrics.items()},
            tags={"git_commit": tags.get("git_commit", "")},
        )
    say(f"registered {version.name} version {version.version} as {version.alias}: {version.reason}")
    return version


def summarise(
    candidates: dict[str, Candidate],
    versions: dict[str, RegisteredVersion],
    comparison: dict[str, Any],
    ceiling: dict[str, float] | None,
) -> dict[str, Any]:
    """Gather what a person wants to see at once: metrics, versions, and in words who beats whom."""
    documents = {name: read_metrics(candidate.evaluation_dir) for name, candidate in candidates.items()}
    first = next(iter(documents.values()))
    models = {
        name: {"metrics": document["metrics"], "version": asdict(versions[name])}
        for name, document in documents.items()
    }
    verdicts = [baseline_verdict(name, document)[1] for name, document in documents.items()]
    return {
        "models": models,
        "baselines": first["baselines"],
        "ceiling": ceiling,
        "filter_seen": first["filter_seen"],
        "num_cases": first["num_cases"],
        "num_items": first["num_items"],
        "comparison": comparison,
        "verdicts": [*verdicts, comparison_verdict(comparison)],
    }


def _track(run: RunRef, summary: dict[str, Any], report_path: Path, summary_path: Path) -> None:
    if not run:
        return
    with child_run(run, "comparison", {"kind": "comparison"}) as child:
        pairs = summary["comparison"]["metrics"]
        child.log_metrics({f"{key}/{name}": pair[key] for name, pair in pairs.items() for key in pair})
        child.set_tags({f"verdict.{place}": verdict for place, verdict in enumerate(summary["verdicts"])})
        child.log_dict(summary["comparison"], "comparison.json")
    tracker = MlflowTracker(run)
    for name, model in summary["models"].items():
        tracker.log_metrics({f"{name}/test/{metric}": value["value"] for metric, value in model["metrics"].items()})
    tracker.log_text_file(report_path, "report.html")
    tracker.log_text_file(summary_path, "summary.json")
    close_pipeline_run(run, "FINISHED")
