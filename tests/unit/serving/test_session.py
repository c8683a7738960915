"""The online session against the whole history, its constant size, and what it says about itself."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from glintru_model.config import GlintruConfig, GlintruRecommender
from glintru_model.errors import InputError
from glintru_model.models.registry import build_model
from glintru_model.serving.recommender import Recommender
from glintru_model.serving.session import Session, _fingerprint


@pytest.fixture(scope="module")
def carried(glintru_dir):
    return Recommender.load(glintru_dir)


@pytest.fixture(scope="module")
def windowed(sasrec_dir):
    return Recommender.load(sasrec_dir)


def test_carried_state_answers_as_the_whole_history_encoded_at_once(carried):
    rng = np.random.default_rng(0)
    session, history = Session(carried), []
    for item in rng.integers(100, 130, size=60).tolist():  # max_seq_len is 8
        session.add(item)
        history.append(item - 99)
        with torch.no_grad():
            hidden = carried.model.encode(torch.tensor([history]), torch.tensor([len(history)]))[0, -1]
            scores = carried.model.score(hidden[None])[0, 1:].numpy()
        reply = session.recommend(30, filter_seen=False)
        assert reply.item_ids == (np.argsort(-scores, kind="stable") + 100).tolist()
        np.testing.assert_allclose(reply.scores, np.sort(scores)[::-1], atol=1e-4)
    assert (reply.history_rule, reply.num_events, reply.ranked_by) == ("all events", 60, "model")


def test_short_session_answers_as_the_registered_model(carried, windowed):
    for recommender, events in ((carried, [100, 103, 7, 120]), (windowed, ["B001", "B009", "?", "B003"])):
        session = Session(recommender)
        session.add(*events)
        (expected,) = recommender.recommend([events], 5, exclude=events[:1])
        reply = session.recommend(5, exclude=events[:1])
        assert (reply.item_ids, reply.num_unknown_items) == (expected.item_ids, 1)
        assert reply.scores == pytest.approx(expected.scores, abs=1e-5)


def test_window_answers_as_the_registered_model_and_says_how_far_it_looks(windowed):
    events = [f"B{i % 30:03}" for i in range(50)]
    session = Session(windowed)
    session.add(*events)
    reply = session.recommend(30, filter_seen=False)
    (expected,) = windowed.recommend([events], 30, filter_seen=False)
    assert reply.item_ids == expected.item_ids
    assert (reply.history_rule, reply.num_events) == ("last 8 events", 50)


@pytest.mark.parametrize("name", ["carried", "windowed"])
def test_packed_session_goes_on_where_it_was_and_does_not_grow(name, request):
    recommender = request.getfixturevalue(name)
    ids = recommender.vocabulary.item_ids.to_pylist()
    session, sizes = Session(recommender), []
    for round_number in range(40):
        session.add(*ids[round_number % 3 : round_number % 3 + 12], ids[0])
        packed = session.to_bytes()
        sizes.append(len(packed))
        again = Session.from_bytes(recommender, packed)
        assert again.recommend(5) == session.recommend(5)
        session = again
    assert session.num_events == 40 * 13
    assert max(sizes) - min(sizes) <= 16  # the digits of a counter


def test_variant_that_looks_ahead_keeps_a_window(carried):
    architecture = GlintruConfig(max_seq_len=4, embedding_dim=8, num_heads=2, variant="paper")
    model = build_model(GlintruRecommender(architecture=architecture), 30).eval()
    session = Session(Recommender(model, carried.vocabulary))
    session.add(*range(100, 110))
    assert session.recommend(3).history_rule == "last 4 events"


def test_empty_session_gets_popularity_and_says_so(carried):
    session = Session(carried)
    session.add(1, 2)  # unknown
    reply = session.recommend(2)
    assert (reply.item_ids, reply.ranked_by) == ([100, 101], "popularity")
    assert (reply.num_events, reply.num_unknown_items) == (0, 2)


def test_bad_requests_are_one_line_and_change_nothing(carried, windowed):
    session = Session(carried)
    session.add(100)
    before = session.to_bytes()
    with pytest.raises(InputError, match=r"events, position 1: found 'x' \(str\)"):
        session.add(101, "x")
    for k in (0, -1, 31):
        with pytest.raises(InputError, match=rf"^k {k}, allowed: 1\.\.30"):
            session.recommend(k)
    assert session.to_bytes() == before
    with pytest.raises(InputError, match="packed by another model"):
        Session.from_bytes(windowed, before)
    header = {"session": json.dumps({"model": _fingerprint(carried), "num_events": 1, "num_unknown_items": 0})}
    tensors = load(before)
    crafted = [
        save(tensors, metadata={"session": json.dumps({"num_events": 1})}),
        save({**tensors, "hidden": torch.zeros(2, 8)}, metadata=header),
        save({**tensors, "seen": torch.zeros(1, dtype=torch.uint8)}, metadata=header),
        save({"seen": tensors["seen"]}, metadata=header),
    ]
    assert Session.from_bytes(carried, save(tensors, metadata=header)).recommend(3) == session.recommend(3)
    for broken in (b"", b"no session at all", before[:40], before[:-5], *crafted):
        with pytest.raises(InputError, match="not what a session was packed into"):
            Session.from_bytes(carried, broken)
