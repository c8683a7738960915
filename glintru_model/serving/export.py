"""A model as a `torch.export` program (.pt2): it runs without this package, also from C++ (AOTInductor).

Input: item indices 1..V, oldest first, padded on the right with 0 to `max_seq_len`, int64 (B, L); and lengths,
int64 (B,). Output: scores of items 1..V, float32 (B, V). Item indices are rows of `vocabulary.arrow`, plus one.
"""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from glintru_model.errors import TrainingError
from glintru_model.files import atomic_file
from glintru_model.models.base import SequentialRecommender
from glintru_model.models.files import load_model

TOLERANCE = 1e-4
_MAX_BATCH = 4096
_TRIED_BATCHES = (1, 2, 17)


class NextItemScores(nn.Module):
    """The model with its scores of the whole catalogue, padding left out."""

    def __init__(self, model: SequentialRecommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, item_ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Score items 1..V as the next of each history, (B, V)."""
        hidden_BLD = self.model(item_ids_BL, lengths_B)
        last_BD = hidden_BLD[torch.arange(hidden_BLD.shape[0], device=lengths_B.device), lengths_B - 1]
        scores_BV: Tensor = last_BD @ self.model.item_embedding.weight[1:].T
        return scores_BV


def export_model(model_dir: Path, path: Path) -> float:
    """Export a trained model and compare the file, read back, with the model on random histories.

    Args:
        model_dir: what training wrote.
        path: the .pt2 file to write; it is written only if the scores agree.

    Returns:
        The largest difference of a score.

    Raises:
        DataError: the model cannot be loaded.
        TrainingError: the scores differ by more than 1e-4.
        StorageError: the disk refused.
    """
    model, _ = load_model(model_dir)
    model.requires_grad_(False)
    scorer = NextItemScores(model).eval()
    batch = {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}
    program = torch.export.export(scorer, _histories(model, 2, seed=0), dynamic_shapes=(batch, batch))
    packed = io.BytesIO()  # torch's own writer ends the whole process where the disk is full
    torch.export.save(program, packed)
    with atomic_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())
        with temporary.open("rb") as file:
            difference = _largest_difference(model, torch.export.load(file).module())
        if not difference <= TOLERANCE:
            raise TrainingError(f"exported scores differ from the model's by {difference:.2g}, allowed: {TOLERANCE}")
    return difference


def _largest_difference(model: SequentialRecommender, exported: nn.Module) -> float:
    """Compare with the way the package itself scores, (B, V + 1) with padding."""
    worst = 0.0
    with torch.no_grad():
        for size in _TRIED_BATCHES:
            item_ids_BL, lengths_B = _histories(model, size, seed=size)
            expected = model.score(model.last_hidden(item_ids_BL, lengths_B))[:, 1:]
            worst = max(worst, float((exported(item_ids_BL, lengths_B) - expected).abs().max()))
    return worst


def _histories(model: SequentialRecommender, size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, model.max_seq_len + 1, (size,), generator=generator)
    lengths_B[0] = model.max_seq_len
    item_ids_BL = torch.randint(1, model.num_items + 1, (size, model.max_seq_len), generator=generator)
    return item_ids_BL.masked_fill(torch.arange(model.max_seq_len) >= lengths_B[:, None], 0), lengths_B
