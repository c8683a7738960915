"""Settings: what is refused, and how clearly."""

import json
from pathlib import Path

import pytest

from glintru_model.config import GlintruConfig, GlintruRecommender, PipelineConfig, SasrecRecommender, Search
from glintru_model.config_io import load_pipeline_config, parse, parse_recommender, require_model_name
from glintru_model.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "pipelines" / "configs"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"models": {"glintru": {"architecture": {"max_seq_len": 0}}}}, ["glintru.architecture.max_seq_len", "0", "1"]),
        ({"models": {"gru4rec": {}}}, ["models.gru4rec", "glintru, sasrec"]),
        (
            {"models": {"sasrec": {"architecture": {"embeding_dim": 8}}}},
            ["embeding_dim", "did you mean", "embedding_dim"],
        ),
        ({"models": {"sasrec": {"architecture": {"num_heads": 3}}}}, ["num_heads 3", "embedding_dim 64"]),
        ({"ingest": {"format": "xlsx"}}, ["ingest.format", "xlsx", "parquet"]),
        ({"evaluation": {"cutoffs": [5]}}, ["[5]", "must contain 10"]),
        ({"sequences": {"validation_quantile": 0.95}}, ["validation_quantile 0.95", "test_quantile 0.9"]),
        ({"name": "Has Spaces"}, ["name", "Has Spaces"]),
        ({"nome": "x"}, ["nome", "allowed", "ingest"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_value_and_what_is_allowed(values, parts):
    with pytest.raises(ConfigError) as caught:
        parse(PipelineConfig, values, "run.yaml")
    message = str(caught.value)
    assert message.startswith("run.yaml: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_config_errors_exit_with_2():
    assert ConfigError("x").exit_code == 2


def test_overrides_lie_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: mine\ningest: {source: a.csv, min_rating: 5}\n")
    config = load_pipeline_config(path, {"ingest.source": "b.parquet", "tuning.num_trials": 3})
    assert (config.name, config.ingest.source, config.ingest.min_rating, config.tuning.num_trials) == (
        "mine",
        "b.parquet",
        5,
        3,
    )


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "just text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_pipeline_config(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_pipeline_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_made_run_is_valid(path):
    assert load_pipeline_config(path).name == path.stem


@pytest.mark.parametrize("recommender", [GlintruRecommender(), SasrecRecommender()])
def test_a_recommender_survives_json(recommender):
    assert parse_recommender(recommender.model_dump_json(), "x") == recommender


def test_an_unknown_recommender_is_refused():
    with pytest.raises(ConfigError, match=r"gru4rec.*glintru.*sasrec"):
        parse_recommender(json.dumps({"name": "gru4rec"}), "x")
    with pytest.raises(ConfigError, match=r"'bert' does not exist, allowed: glintru, sasrec"):
        require_model_name("bert")


def test_search_ranges_lie_inside_the_bounds_of_their_fields():
    space = GlintruConfig.search_space()
    assert space["dropout_rate"] == Search(0.1, 0.6)
    for name, search in space.items():
        for value in (search.low, search.high):
            assert getattr(GlintruConfig(**{name: value}), name) == value


def test_paper_variant_needs_an_odd_kernel_and_causal_refuses_released_padding():
    with pytest.raises(ConfigError, match="kernel_size 4 must be odd"):
        parse(GlintruConfig, {"variant": "paper", "kernel_size": 4}, "x")
    with pytest.raises(ConfigError, match="released_padding"):
        parse(GlintruConfig, {"released_padding": True}, "x")
