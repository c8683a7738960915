"""Cross-entropy over a whole catalogue on a GPU: this package's, torch's on full logits, and two maintained libraries'.

    python -m benchmarks.cross_entropy

Needs a CUDA device; cut-cross-entropy and liger-kernel are measured where they are installed. Random hidden vectors,
as trained ones are scaled. Prints milliseconds of loss and gradient, peak memory beside the inputs, and how far the
gradient is from float64's on full logits; writes benchmarks/results/cross_entropy.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.gpu import describe_gpu, milliseconds
from glintru_model.files import write_json
from glintru_model.progress import say
from glintru_model.training.losses import cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

# targets, width, items: a batch of ML-1M, of Beauty, a large catalogue, a very large one
SIZES = ((10_000, 64, 3_416), (4_096, 64, 12_101), (8_192, 128, 100_000), (8_192, 64, 1_000_000))
COMPARED_ITEMS = 100_000  # beyond, full logits in float64 do not fit
LOGIT_SCALE = 3.0


def main() -> None:
    """Measure every loss at every size and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cross_entropy.json"))
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    rows = []
    for size in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            for name, loss in losses().items():
                row = {"targets": size[0], "dim": size[1], "items": size[2], "dtype": str(dtype)[6:], "loss": name}
                rows.append(row | _measured(loss, size, dtype))
                say(str(rows[-1]))
                write_json(options.output, {"hardware": describe_gpu(), "rows": rows})


def losses() -> dict[str, Loss]:
    """Return what can be measured here; each takes hidden_ND, table (V + 1, D) with padding first, targets_N 1..V."""
    found: dict[str, Loss] = {
        "ours": cross_entropy,
        "full logits": lambda hidden, table, targets: F.cross_entropy(hidden @ table[1:].T, targets - 1),
    }
    try:
        from cut_cross_entropy import linear_cross_entropy

        found["cut-cross-entropy"] = lambda hidden, table, targets: linear_cross_entropy(hidden, table[1:], targets - 1)
    except ImportError:
        say("cut-cross-entropy is not installed")
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        found["liger-kernel"] = lambda hidden, table, targets: liger_fused_linear_cross_entropy(
            hidden, table[1:], targets - 1
        )
    except ImportError:
        say("liger-kernel is not installed")
    return found


def _measured(loss: Loss, size: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Any]:
    num_targets, dim, num_items = size
    torch.manual_seed(0)
    scale = (LOGIT_SCALE / dim**0.5) ** 0.5
    hidden, table = (scale * torch.randn(rows, dim, device="cuda") for rows in (num_targets, num_items + 1))
    targets = torch.randint(1, num_items + 1, (num_targets,), device="cuda")
    weights = hidden.requires_grad_(), table.requires_grad_()

    def step() -> None:
        for weight in weights:
            weight.grad = None
        loss(hidden.to(dtype), table.to(dtype), targets).backward()  # type: ignore[no-untyped-call]

    try:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        peak = torch.cuda.max_memory_allocated() - before
        taken = milliseconds(step)
    except Exception as error:  # a library that cannot do this size or type is a finding
        return {"error": (str(error).splitlines() or [type(error).__name__])[0][:200]}
    found = {"milliseconds": taken, "peak_mb": peak / 1e6}
    if num_items <= COMPARED_ITEMS:
        gradients = [weight.grad for weight in weights]
        found["gradient_error"] = _error(gradients, weights, targets)
    return found


def _error(found: list[Tensor | None], weights: tuple[Tensor, Tensor], targets: Tensor) -> float:
    hidden, table = (weight.detach().double().requires_grad_() for weight in weights)
    F.cross_entropy(hidden @ table[1:].T, targets - 1).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([hidden.grad.flatten(), table.grad.flatten()])  # type: ignore[union-attr]
    got = torch.cat([gradient.flatten() for gradient in found if gradient is not None]).double()
    return float((got - expected).norm() / expected.norm())


if __name__ == "__main__":
    main()
