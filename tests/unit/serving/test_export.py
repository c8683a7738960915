"""Exported programs give the model's scores, and a wrong one is not written."""

import resource

import pytest
import torch

from glintru_model.errors import DataError, StorageError, TrainingError
from glintru_model.models.files import load_model
from glintru_model.serving import export
from glintru_model.serving.export import export_model

pytestmark = pytest.mark.slow  # tracing takes ten seconds


@pytest.mark.parametrize("name", ["glintru", "sasrec"])
def test_exported_program_scores_as_the_model(name, request, tmp_path):
    directory = request.getfixturevalue(f"{name}_dir")
    assert export_model(directory, tmp_path / "m.pt2") <= 1e-4
    exported = torch.export.load(tmp_path / "m.pt2")
    program, decomposed = exported.module(), exported.run_decompositions().module()  # which a compiler reads
    model, _ = load_model(directory)
    rng = torch.Generator().manual_seed(5)
    items = torch.randint(1, 31, (33, 8), generator=rng)
    lengths = torch.randint(1, 9, (33,), generator=rng)
    items = items.masked_fill(torch.arange(8) >= lengths[:, None], 0)
    scores = program(items, lengths)
    assert scores.shape == (33, 30)
    torch.testing.assert_close(decomposed(items, lengths), scores, atol=1e-4, rtol=0)
    for row in range(33):  # one by one and without padding
        alone = items[row : row + 1, : lengths[row]]
        with torch.no_grad():
            expected = model.score(model.last_hidden(alone, lengths[row : row + 1]))[0, 1:]
        torch.testing.assert_close(scores[row], expected, atol=1e-4, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


def test_program_that_differs_is_not_written(sasrec_dir, tmp_path, monkeypatch):
    honest = export.NextItemScores.forward
    monkeypatch.setattr(
        export.NextItemScores, "forward", lambda self, item_ids, lengths: honest(self, item_ids, lengths) + 0.01
    )
    with pytest.raises(TrainingError, match=r"exported scores differ from the model's by 0\.01, allowed: 0\.0001"):
        export_model(sasrec_dir, tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_disk_that_refuses_leaves_nothing(sasrec_dir, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # larger files are refused, as by a full disk
    try:
        with pytest.raises(StorageError, match=r"m\.pt2: cannot write: File too large"):
            export_model(sasrec_dir, tmp_path / "m.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"config\.json: cannot read"):
        export_model(tmp_path, tmp_path / "m.pt2")
