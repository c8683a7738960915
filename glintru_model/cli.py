"""`glintru`: every stage without Kubernetes, each from a folder to a folder, untracked."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from glintru_model import __version__, stages
from glintru_model.command import run_command
from glintru_model.config import MODEL_NAMES, PipelineConfig
from glintru_model.config_io import load_pipeline_config, require_model_name
from glintru_model.files import write_json
from glintru_model.progress import say
from glintru_model.serving import commands

Command = Callable[[argparse.Namespace, PipelineConfig], None]

_UNTRACKED = ""  # in place of a reference to an MLflow run
_NEEDS = {
    "output": "folder (or, for tune, JSON file) to write",
    "interactions": "folder that `glintru ingest` wrote",
    "dataset": "folder that `glintru build-sequences` wrote",
    "trained": "folder that `glintru train` wrote",
    "model": f"one of: {', '.join(MODEL_NAMES)}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit code: 2 for bad input, 1 for a failure."""
    options = _parser().parse_args(arguments)
    overrides = {"ingest.source": options.data} if getattr(options, "data", "") else {}
    command: Command = options.run
    return run_command(
        lambda: command(options, load_pipeline_config(options.config, overrides)), debug=bool(options.debug)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glintru", description=__doc__)
    parser.add_argument("--version", action="version", version=f"glintru {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, *needs: str, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--config", type=Path, default=None, help="YAML file of settings (default: the defaults)")
        command.add_argument("--debug", action="store_true", help="show tracebacks")
        for need in needs:
            command.add_argument(f"--{need}", required=True, type=str if need == "model" else Path, help=_NEEDS[need])
        command.set_defaults(run=run)
        return command

    read = add("ingest", _ingest, "output", summary="Read, validate and clean an interaction log")
    read.add_argument("--data", default="", help="path, s3://..., https://..., a catalog name or `synthetic`")
    read.add_argument("--downloads", type=Path, default=Path("runs/downloads"), help="where downloads are kept")
    add("build-sequences", _build, "interactions", "output", summary="Index items, split, and write sequences")
    add("tune", _tune, "model", "dataset", "output", summary="Search hyperparameters with one worker")
    train = add("train", _train, "dataset", "output", summary="Train a recommender")
    chosen = train.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--model", help=f"with the config's own settings: {_NEEDS['model']}")
    chosen.add_argument("--best", type=Path, help="with the settings that `glintru tune` found: its result")
    add("evaluate", _evaluate, "trained", "dataset", "output", summary="Rank the whole catalogue for every test target")
    _add_serving(add)
    return parser


def _add_serving(add: Callable[..., argparse.ArgumentParser]) -> None:
    answer = add("recommend", _recommend, "output", summary="Recommend for every user of a Parquet file")
    answer.add_argument("--input", required=True, type=Path, help="Parquet: user_id and history, or an interaction log")
    answer.add_argument("--k", type=int, default=10, help="items for each user (default: 10)")
    answer.add_argument("--keep-seen", action="store_true", help="recommend what a user has had, too")
    exported = add("export", _export, "output", summary="Write a model as a torch.export program (.pt2)")
    for command in (answer, exported):
        command.add_argument("--trained", required=True, help=f"{_NEEDS['trained']}, or models:/NAME@champion")
    promote = add("promote", _promote, summary="Make a registered version the champion by hand")
    promote.add_argument("--version", required=True, help="its number")
    back = add("rollback", _rollback, summary="Give the alias champion back to the version before")
    for command in (answer, exported, promote, back):
        command.add_argument("--runs-dir", type=Path, default=Path("runs"), help="local runs (or MLFLOW_TRACKING_URI)")
    for command in (promote, back):
        command.add_argument("--name", required=True, help="the registered model, e.g. glintru")


def _recommend(options: argparse.Namespace, _: PipelineConfig) -> None:
    source, output, keep_seen = options.input, options.output, options.keep_seen
    commands.recommend(options.trained, source, output, k=options.k, keep_seen=keep_seen, runs_dir=options.runs_dir)
    say(f"written: {output}")


def _export(options: argparse.Namespace, _: PipelineConfig) -> None:
    commands.export(options.trained, options.output, options.runs_dir)
    say(f"written: {options.output}")


def _promote(options: argparse.Namespace, _: PipelineConfig) -> None:
    commands.promote(options.name, options.version, options.runs_dir)


def _rollback(options: argparse.Namespace, _: PipelineConfig) -> None:
    commands.rollback(options.name, options.runs_dir)


def _ingest(options: argparse.Namespace, config: PipelineConfig) -> None:
    stages.ingest(config.ingest.model_dump_json(), str(options.downloads), str(options.output))
    _done(options.output, f"glintru build-sequences --interactions {options.output} --output ...")


def _build(options: argparse.Namespace, config: PipelineConfig) -> None:
    stages.build_sequences(
        config.sequences.model_dump_json(),
        config.evaluation.model_dump_json(),
        str(options.interactions),
        str(options.output),
        str(options.output.with_name(f"{options.output.name}-report.html")),
    )
    _done(options.output, f"glintru train --model glintru --dataset {options.output} --output ...")


def _tune(options: argparse.Namespace, config: PipelineConfig) -> None:
    recommender = _recommender(options.model, config)
    work = options.output.with_name(f"{options.output.name}.study")
    study, trials = str(work / "study.json"), str(work / "trials.json")
    tuning, evaluation = config.tuning.model_dump_json(), config.evaluation.model_dump_json()
    stages.create_study(
        recommender, tuning, options.output.stem, f"journal:{work / 'study.journal'}", _UNTRACKED, study
    )
    stages.tune(recommender, tuning, evaluation, 0, study, str(options.dataset), _UNTRACKED, trials)
    report = options.output.with_suffix(".html")
    stages.select_hyperparameters(recommender, study, [trials], _UNTRACKED, str(options.output), str(report))
    _done(options.output, f"glintru train --best {options.output} --dataset {options.dataset} --output ...")


def _train(options: argparse.Namespace, config: PipelineConfig) -> None:
    best = options.best
    if best is None:
        best = options.output.with_name(f"{options.output.name}.settings.json")
        write_json(best, {"recommender": json.loads(_recommender(options.model, config)), "trials": []})
    evaluation = config.evaluation.model_dump_json()
    stages.train(evaluation, str(best), str(options.dataset), _UNTRACKED, str(options.output))
    _done(options.output, f"glintru evaluate --trained {options.output} --dataset {options.dataset} --output ...")


def _evaluate(options: argparse.Namespace, config: PipelineConfig) -> None:
    report = options.output.with_name(f"{options.output.name}-report.html")
    trained, dataset, output = str(options.trained), str(options.dataset), str(options.output)
    stages.evaluate(config.evaluation.model_dump_json(), trained, dataset, _UNTRACKED, output, str(report))
    _done(report, "open it in a browser")


def _recommender(name: str, config: PipelineConfig) -> str:
    return str(getattr(config.models, require_model_name(name)).model_dump_json())


def _done(output: Path, next_step: str) -> None:
    say(f"written: {output}")
    say(f"next: {next_step}")


if __name__ == "__main__":
    sys.exit(main())
