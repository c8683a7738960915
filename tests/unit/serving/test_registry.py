"""Registered models in a real MLflow registry on sqlite."""

import re
import shutil
from pathlib import Path

import pytest

from glintru_model.errors import DataError, InputError, TrackingError
from glintru_model.serving import registry
from glintru_model.serving.aliases import list_champions, promote, rollback
from glintru_model.serving.packaging import model_sha256
from glintru_model.serving.registry import register
from glintru_model.tracking import RunRef
from tests.unit.serving.registering import FIRST, holder, holder_or_none


def test_version_says_where_it_comes_from(client, add, name, glintru_dir):
    added = add("a", 0.25)
    version = client.get_model_version(name, added.version)
    expected = {
        "git_commit": "abc",
        "dataset_hash": "data-1",
        "pipeline_run": f"{name}-a",
        "model_sha256": model_sha256(glintru_dir),
        "validation_ndcg_at_10": "0.25",
        "test_ndcg_at_10": "0.05",
        "test_recall_at_10": "0.1",
        "decision": "champion",
    }
    assert {key: version.tags[key] for key in expected} == expected
    assert added.reason in version.description
    assert "Test ndcg_at_10 0.0500" in version.description
    logged = client.get_logged_model(version.tags["model_id"])
    assert logged.status == "READY"
    assert {metric.key: metric.value for metric in logged.metrics} == {
        "val/ndcg_at_10": 0.25,
        "test/ndcg_at_10": 0.05,
        "test/recall_at_10": 0.1,
    }
    assert [output.model_id for output in client.get_run(version.run_id).outputs.model_outputs] == [logged.model_id]


def test_registering_twice_changes_nothing(client, add, name):
    first = add("a", 0.2)
    before = client.get_model_version(name, first.version)
    better = add("b", 0.3)
    again = add("a", 0.2)
    assert again == first
    assert [str(v.version) for v in client.search_model_versions(f"name = '{name}'")] == ["2", "1"]
    assert holder(client, name, "champion") == better.version
    after = client.get_model_version(name, first.version)
    assert (after.tags, after.description) == (before.tags, before.description)


@pytest.mark.parametrize("broken_at", ["_create_version", "_give_alias"])
def test_attempt_that_died_on_the_way_is_completed(client, add, name, monkeypatch, broken_at):
    model = f"{name}"
    before = len(client.search_model_versions(f"name = '{model}'"))

    def die(*_):
        raise TrackingError("the server went away")

    with monkeypatch.context() as patched:
        patched.setattr(registry, broken_at, die)
        with pytest.raises(TrackingError, match="went away"):
            add("a", 0.2)
    assert before > 0 or holder_or_none(client, model) is None
    added = add("a", 0.2)
    assert len(client.search_model_versions(f"name = '{model}'")) == before + 1
    version = client.get_model_version(model, added.version)
    assert version.tags["decision"] == added.alias
    experiment = client.get_experiment_by_name("registry").experiment_id
    clause = f"name = '{model}' AND tags.pipeline_run = '{version.tags['pipeline_run']}'"
    assert len(client.search_logged_models([experiment], clause)) == 1


def test_champion_is_replaced_only_by_a_better_one_on_the_same_data(client, add, name, uri):
    assert add("a", 0.20).alias == "champion"
    worse = add("b", 0.10)
    assert (worse.alias, holder(client, name, "champion"), holder(client, name, "challenger")) == (
        "challenger",
        "1",
        worse.version,
    )
    better = add("c", 0.30)
    assert (better.alias, holder(client, name, "champion")) == ("champion", better.version)
    elsewhere = add("d", 0.90, dataset="data-2")
    assert (elsewhere.alias, holder(client, name, "champion")) == ("challenger", better.version)
    assert "another dataset" in elsewhere.reason
    champions = list_champions(uri, [name, "never-registered"])
    assert champions["never-registered"] is None
    assert champions[name].version == better.version
    assert "0.3000 against 0.2000 of version 1" in champions[name].reason


def test_version_says_what_it_was_compared_with(client, add, name):
    add("a", 0.20)
    added = add("b", 0.25)
    version = client.get_model_version(name, added.version)
    expected = {
        "decision": "champion",
        "decision_rule": "paired_bootstrap on ndcg_at_10, margin 0",
        "compared_with": "1",
        "compared_users": "50",
    }
    assert {key: version.tags[key] for key in expected} == expected
    assert float(version.tags["validation_difference"]) == pytest.approx(0.05)
    assert float(version.tags["validation_low"]) == pytest.approx(0.04)
    assert "95 % interval 0.0400 to 0.0600" in version.description


def test_better_by_chance_is_a_challenger(client, add, name):
    add("a", 0.20)
    added = add("b", 0.205)
    assert (added.alias, holder(client, name, "champion")) == ("challenger", "1")
    assert "0.2050 against 0.2000" in added.reason


def test_champion_whose_files_are_gone_is_no_yardstick(client, add, name):
    add("a", 0.20)
    source = client.get_model_version(name, "1").source
    shutil.rmtree(source.removeprefix("file://"))
    added = add("b", 0.25)
    assert (added.alias, holder(client, name, "champion")) == ("challenger", "1")
    assert "no yardstick: its files cannot be used" in added.reason


def test_champion_with_corrupted_weights_is_no_yardstick(client, add, name):
    add("a", 0.20)
    source = Path(client.get_model_version(name, "1").source.removeprefix("file://"))
    (source / "artifacts/model/model.safetensors").write_bytes(b"no weights")
    added = add("b", 0.25)
    assert (added.alias, holder(client, name, "champion")) == ("challenger", "1")
    assert "its files have changed since it was registered" in added.reason


def test_champion_crowned_by_another_run_meanwhile_is_compared_with(client, name, add, uri, monkeypatch):
    """Two runs end at once: what the slower one compared itself with is the champion no more."""
    add("a", 0.20)
    compared, judged = [], registry._judged

    def slowly(client, champion, judge):
        compared.append(str(champion.version))
        if len(compared) == 1:
            promote(uri, name, add_quietly("b", 0.40))
        return judged(client, champion, judge)

    def add_quietly(run, figure):
        with monkeypatch.context() as patched:
            patched.setattr(registry, "_judged", judged)
            return add(run, figure).version

    monkeypatch.setattr(registry, "_judged", slowly)
    added = add("c", 0.30)
    assert compared == ["1", holder(client, name, "champion")]
    assert added.alias == "challenger"
    assert "0.3000 against 0.4000" in added.reason


def test_promote_and_roll_back_leave_a_trace(client, add, name, uri):
    for run, figure in (("a", 0.1), ("b", 0.2), ("c", 0.15)):
        add(run, figure)
    assert (holder(client, name, "champion"), holder(client, name, "challenger")) == ("2", "3")
    assert promote(uri, name, "3").version == "3"
    assert (holder(client, name, "champion"), holder(client, name, "challenger")) == ("3", None)
    promoted = client.get_model_version(name, "3")
    assert "promoted_at" in promoted.tags
    decided, moved = promoted.description.split("\n\n")
    assert decided.startswith("Challenger: not better than the champion: validation ndcg_at_10 0.1500")
    assert re.fullmatch(r"Promoted by hand in place of version 2 \(20\d\d-\S+\)\.", moved)
    assert promote(uri, name, "3").version == "3"  # it is champion already: nothing to note
    assert client.get_model_version(name, "3").description == promoted.description
    assert rollback(uri, name).version == "2"
    traced = client.get_model_version(name, "3").tags
    assert traced["rolled_back_to"] == "2"
    assert traced["rolled_back_at"] >= traced["promoted_at"]
    regained = client.get_model_version(name, "2")
    assert regained.tags["champion_reason"] == "rolled back from version 3"
    assert "\n\nChampion again: rolled back from version 3 (" in regained.description
    assert "\n\nRolled back to version 2 (" in client.get_model_version(name, "3").description
    assert rollback(uri, name).version == "1"
    with pytest.raises(InputError, match="version 1 is the first champion"):
        rollback(uri, name)


def test_versions_that_do_not_exist_are_named(client, add, name, uri):
    add("a", 0.1)
    add("b", 0.2)
    with pytest.raises(InputError, match=rf"'{name}' has no version '9', there are: 1, 2$"):
        promote(uri, name, "9")
    client.delete_model_version(name, "1")
    with pytest.raises(InputError, match=r"no version '1', there are: 2$"):
        rollback(uri, name)
    assert holder(client, name, "champion") == "2"
    with pytest.raises(InputError, match="'nobody' has no champion"):
        rollback(uri, "nobody")


def test_broken_weights_are_refused_before_anything_is_registered(add, name, uri, glintru_dir, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(glintru_dir, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(DataError, match="not a safetensors file"):
        add("a", 0.1, model_dir=broken)
    assert list_champions(uri, [name]) == {name: None}


def test_untracked_run_registers_nothing(glintru_dir):

    kwargs = {
        **FIRST,
        "pipeline_run": "r",
        "dataset_hash": "d",
        "validation_metrics": {},
        "test_metrics": {},
        "tags": {},
    }
    added = register(glintru_dir, tracking=RunRef(), model_name="n", **kwargs)
    assert (added.version, added.alias) == ("", "")


def test_registry_that_is_not_reachable_is_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9: not reachable: [^\n]+$"):
        list_champions("http://127.0.0.1:9", ["x"])
