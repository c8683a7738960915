import resource

import pytest
import torch

from glintru_model.errors import StorageError
from glintru_model.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint


def test_a_disk_that_refuses_leaves_the_checkpoint_before(tmp_path):
    part = torch.nn.Linear(100, 100)
    save_checkpoint(tmp_path, "settings", TrainingState(step=1), {"model": part})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))  # larger files are refused, as by a full disk
    try:
        with pytest.raises(StorageError, match=r"checkpoint\.pt: cannot write"):
            save_checkpoint(tmp_path, "settings", TrainingState(step=2), {"model": part})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    state = load_checkpoint(tmp_path, "settings", {"model": part})
    assert state is not None
    assert state.step == 1
