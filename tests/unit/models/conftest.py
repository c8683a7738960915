import os

import pytest
import torch

from glintru_model.models import best, glintru_by_item, gru, sasrec
from glintru_model.models.cpu_kernels import attention, compiled, cross_entropy, elementwise


@pytest.fixture(params=[1, 3])
def threads(request):
    """How many threads torch has, and with it the kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def kernels(monkeypatch):
    """Names of the kernels that were called, so that no test passes without them."""
    if compiled.kernels() is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler: the kernels would go untested")
        pytest.skip("no C compiler")
    called, run = [], compiled.run

    def spy(kernel, *arguments):
        called.append(kernel)
        run(kernel, *arguments)

    monkeypatch.setattr(compiled, "_ELEMENTS_PER_THREAD", 1)
    for module in (attention, best, cross_entropy, elementwise, glintru_by_item, gru, sasrec):
        monkeypatch.setattr(module, "run", spy)
    return called
