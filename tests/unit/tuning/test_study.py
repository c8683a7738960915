"""Studies on a real journal: one budget for all workers, retries, and the best settings in the end."""

import threading

import optuna
import pytest
import torch

from glintru_model.config import TuningConfig
from glintru_model.errors import ConfigError, TrackingError, TrainingError
from glintru_model.training.results import EpochResult
from glintru_model.tuning import objective
from glintru_model.tuning.search import configured_values, search_space, suggest, with_values
from glintru_model.tuning.study import best_recommender, counted_trials, load_study, open_study, trial_rows
from glintru_model.tuning.worker import run_worker

CONFIG = TuningConfig(num_trials=9, max_epochs=3, min_epochs_before_pruning=1)


@pytest.fixture
def work(recommender, dataset, storage, untracked):
    """Open the study and work in it."""

    def run(config=CONFIG, worker=0, where=storage, data=dataset):
        open_study(where, "s", config, recommender)
        return run_worker(
            recommender,
            data,
            config,
            storage=where,
            study_name="s",
            worker=worker,
            validate=lambda _: pytest.fail("the stand-in for training brings its own scores"),
            tracker_parent=untracked,
        )

    return run


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_best_settings_are_those_of_the_best_trial(work, recommender, storage, known_training):
    assert work() == 9
    best, rows = best_recommender(storage, "s", recommender)
    names = list(configured_values(recommender))
    top = max((row for row in rows if row["state"] == "complete"), key=lambda row: row["value"])
    assert best == with_values(recommender, {name: top[name] for name in names})
    assert best.training.max_epochs == recommender.training.max_epochs
    trained = [configured_values(config) for config in known_training]
    assert trained == [{name: row[name] for name in names} for row in rows]
    assert {config.training.max_epochs for config in known_training} == {3}


def test_first_trial_is_the_configured_one_so_the_best_is_never_worse(work, recommender, storage, known_training):
    work()
    rows = trial_rows(storage, "s")
    configured = configured_values(recommender)
    assert {name: rows[0][name] for name in configured} == configured
    assert rows[0]["state"] == "complete"
    assert max(row["value"] for row in rows) > rows[0]["value"]


def test_hopeless_trials_are_pruned_but_not_before_their_time(work, storage, known_training):
    config = TuningConfig(num_trials=12, max_epochs=4, min_epochs_before_pruning=2)
    work(config)
    rows = trial_rows(storage, "s")
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    assert all(2 <= row["epochs"] < 4 for row in pruned)
    assert all(row["epochs"] == 4 for row in rows if row["state"] == "complete")


def test_trial_is_not_longer_than_the_training_it_stands_for(work, recommender, dataset, untracked, known_training):
    short = recommender.model_copy(update={"training": recommender.training.model_copy(update={"max_epochs": 2})})
    run = objective.Objective(short, dataset, CONFIG, worker=0, validate=lambda _: {}, tune_run=untracked)
    study = optuna.create_study(direction="maximize")
    study.optimize(run, n_trials=1)
    assert [config.training.max_epochs for config in known_training] == [2]


def test_one_worker_gives_the_same_trials_twice(work, tmp_path, known_training):
    places = [f"journal:{tmp_path / name}" for name in ("one", "two")]
    for place in places:
        work(where=place)
    first, second = (without_seconds(trial_rows(place, "s")) for place in places)
    assert first == second


def test_workers_draw_differently(work, tmp_path, known_training):
    places = [f"journal:{tmp_path / name}" for name in ("one", "two")]
    for worker, place in enumerate(places):
        work(where=place, worker=worker)
    first, second = (trial_rows(place, "s") for place in places)
    assert first[1]["training.learning_rate"] != second[1]["training.learning_rate"]


def test_budget_is_one_for_all_workers_and_for_workers_started_again(work, storage, known_training):
    counts = {}
    threads = [
        threading.Thread(target=lambda worker=worker: counts.update({worker: work(worker=worker)}))
        for worker in range(4)
    ]
    work(TuningConfig(num_trials=1, max_epochs=3, min_epochs_before_pruning=1))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trial_rows(storage, "s")) == 9
    assert sum(counts.values()) == 9
    trained = len(known_training)
    assert [work(worker=worker) for worker in range(4)] == [counts[worker] for worker in range(4)]
    assert len(known_training) == trained == 9


def test_trial_of_a_vanished_worker_is_run_again_and_costs_nothing(work, recommender, storage, known_training):
    open_study(storage, "s", CONFIG, recommender)
    vanished = load_study(storage, "s").ask()
    vanished.set_user_attr("worker", 1)
    values = suggest(vanished, search_space(recommender))
    assert values == configured_values(recommender)
    assert work(worker=0) == 8  # it may still be at work, so it counts
    assert work(worker=1) == 1
    rows = trial_rows(storage, "s")
    assert len(rows) == 9
    assert [row["number"] for row in rows] == list(range(1, 10))
    assert {name: rows[-1][name] for name in values} == values
    assert rows[-1]["state"] == "complete"  # the configured settings are not pruned, also where others did better


def test_trial_that_vanishes_again_and_again_is_given_up(work, recommender, storage, known_training, monkeypatch):
    class Gone(BaseException):
        """The process dies: no handler of Optuna's sees it."""

    def die(*_, **__):
        raise Gone

    open_study(storage, "s", CONFIG, recommender)
    with monkeypatch.context() as patched:
        patched.setattr(objective, "train", die)
        for _ in range(4):
            with pytest.raises(Gone):
                work()
    assert work() == 9
    rows = trial_rows(storage, "s")
    assert [row["state"] for row in rows].count("failed") == 1
    assert len(load_study(storage, "s").trials) == 12


def test_failed_training_fails_its_trial_alone(work, recommender, storage, known_training, monkeypatch):
    good, calls = objective.train, []

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) % 3 == 0:
            raise TrainingError("loss nan at step 5")
        return good(*args, **kwargs)

    monkeypatch.setattr(objective, "train", sometimes)
    assert work() == 9
    _, rows = best_recommender(storage, "s", recommender)
    assert [row["number"] for row in rows if row["state"] == "failed"] == [2, 5, 8]
    assert {row["value"] for row in rows if row["state"] == "failed"} == {None}


def test_study_without_a_completed_trial_says_why(work, recommender, storage, monkeypatch):
    def fail(*_, **__):
        raise TrainingError("loss nan at step 5")

    monkeypatch.setattr(objective, "train", fail)
    assert work() == 9
    with pytest.raises(TrainingError, match=r"none of 9 trials completed; the first error: loss nan at step 5$"):
        best_recommender(storage, "s", recommender)


def test_bug_ends_the_worker(work, known_training, monkeypatch):
    def bug(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(objective, "train", bug)
    with pytest.raises(ZeroDivisionError):
        work()


def test_out_of_memory_and_scores_that_are_no_number_fail_the_trial(work, storage, monkeypatch, recommender):
    def too_big(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 99 GiB")

    def no_number(config, dataset, *, validate, on_epoch, title):
        on_epoch(EpochResult(1, 1.0, {"ndcg_at_10": float("nan")}, 0.0, 1.0))

    for train, message in ((too_big, "out of memory with these settings: CUDA"), (no_number, "ndcg_at_10 is nan")):
        monkeypatch.setattr(objective, "train", train)
        work(CONFIG.model_copy(update={"num_trials": 1 if train is too_big else 2}))
        assert message in load_study(storage, "s").trials[-1].user_attrs["error"]


def test_study_of_other_settings_or_data_is_not_mixed_up(work, recommender, storage, other_dataset, known_training):
    work()
    other = recommender.model_copy(update={"training": recommender.training.model_copy(update={"seed": 5})})
    with pytest.raises(ConfigError, match="study 's' was made with other settings"):
        open_study(storage, "s", CONFIG, other)
    with pytest.raises(ConfigError, match="study 's' was run on another dataset"):
        work(data=other_dataset)
    longer = CONFIG.model_copy(update={"num_trials": 11, "num_workers": 5})
    assert work(longer) == 11  # a larger budget goes on with the same study


def test_study_that_was_not_created_is_named(storage, recommender, tmp_path):
    with pytest.raises(TrackingError, match=r"journal\.log: no such file, create the study first"):
        trial_rows(storage, "s")
    assert not (tmp_path / "study").exists()
    open_study(storage, "s", CONFIG, recommender)
    with pytest.raises(TrackingError, match="study 't' does not exist"):
        trial_rows(storage, "t")


def test_storage_comes_from_the_environment_where_none_is_given(recommender, tmp_path, monkeypatch):
    monkeypatch.delenv("GLINTRU_STUDY_STORAGE", raising=False)
    with pytest.raises(ConfigError, match=r"no study storage: give journal:PATH or .* GLINTRU_STUDY_STORAGE"):
        open_study("", "s", CONFIG, recommender)
    monkeypatch.setenv("GLINTRU_STUDY_STORAGE", f"journal:{tmp_path / 'j'}")
    open_study("", "s", CONFIG, recommender)
    assert (tmp_path / "j").is_file()


@pytest.mark.parametrize("storage", ["postgresql://u:hush@127.0.0.1:9/db", "postgresql+psycopg2://u:hush@h/db"])
def test_password_in_a_given_storage_is_refused_and_not_repeated(storage, recommender):
    with pytest.raises(ConfigError, match="holds a password: set GLINTRU_STUDY_STORAGE") as caught:
        open_study(storage, "s", CONFIG, recommender)
    assert "hush" not in str(caught.value)


def test_database_that_cannot_be_opened_is_one_line_without_its_password(recommender, monkeypatch):
    monkeypatch.setenv("GLINTRU_STUDY_STORAGE", "postgresql://u:hush@127.0.0.1:9/db")
    with pytest.raises(TrackingError, match=r"^study storage postgresql://127\.0\.0\.1:9/db: [^\n]+$") as caught:
        open_study("", "s", CONFIG, recommender)
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"study storage 'study\.db', allowed"):
        open_study("study.db", "s", CONFIG, recommender)


def test_database_serves_as_well_and_beats_a_heart(work, recommender, tmp_path, known_training):
    where = f"sqlite:///{tmp_path / 'study.db'}"
    config = CONFIG.model_copy(update={"num_trials": 4})
    assert work(config, where=where) == 4
    best_recommender(where, "s", recommender)
    study = load_study(where, "s")
    assert len(counted_trials(study)) == 4
    assert study._storage.get_heartbeat_interval() > 0
