"""Cross-entropy over a whole catalogue: this package's, torch's on full logits, and two maintained libraries'.

    python -m benchmarks.cross_entropy [--device cuda]

On one CPU thread or on a GPU, where cut-cross-entropy and liger-kernel are measured if they are installed. Random
hidden vectors, as trained ones are scaled. Prints milliseconds of loss and gradient, on a GPU peak memory beside the
inputs, and how far the gradient is from float64's on full logits; writes benchmarks/results/cross_entropy_*.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.data_at_scale import describe_machine
from benchmarks.gpu import describe_gpu, milliseconds
from glintru_model.files import write_json
from glintru_model.progress import say
from glintru_model.training.cross_entropy import cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

# targets, width, items: a batch of ML-1M, of Beauty, a large catalogue, a very large one
SIZES = {
    "cpu": ((8_192, 64, 3_416), (4_096, 64, 12_101), (1_024, 64, 100_000), (512, 64, 1_000_000)),
    "cuda": ((10_000, 64, 3_416), (4_096, 64, 12_101), (8_192, 128, 100_000), (8_192, 64, 1_000_000)),
}
COMPARED_ITEMS = 100_000  # beyond, full logits in float64 do not fit
LOGIT_SCALE = 3.0


def main() -> None:
    """Measure every loss at every size and precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=SIZES)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or Path(f"benchmarks/results/cross_entropy_{options.device}.json")
    on_gpu = options.device == "cuda"
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high" if on_gpu else "highest")
    hardware = describe_machine() | (describe_gpu() if on_gpu else {"torch": torch.__version__, "threads": 1})
    to_measure, rows = losses() | (gpu_losses() if on_gpu else {}), []
    for size in SIZES[options.device]:
        for dtype in (torch.float32, torch.bfloat16):
            for name, loss in to_measure.items():
                row = {"targets": size[0], "dim": size[1], "items": size[2], "dtype": str(dtype)[6:], "loss": name}
                rows.append(row | _measured(loss, size, dtype, options.device))
                say(str(rows[-1]))
                write_json(output, {"hardware": hardware, "rows": rows})


def losses() -> dict[str, Loss]:
    """Return two losses; each takes hidden_ND, table (V + 1, D) with padding first, targets_N 1..V."""
    return {
        "ours": cross_entropy,
        "full logits": lambda hidden, table, targets: F.cross_entropy(hidden @ table[1:].T, targets - 1),
    }


def gpu_losses() -> dict[str, Loss]:
    """Return those of the libraries that are installed."""
    found: dict[str, Loss] = {}
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


def _measured(loss: Loss, size: tuple[int, int, int], dtype: torch.dtype, device: str) -> dict[str, Any]:
    num_targets, dim, num_items = size
    torch.manual_seed(0)
    scale = (LOGIT_SCALE / dim**0.5) ** 0.5
    hidden, table = (scale * torch.randn(rows, dim, device=device) for rows in (num_targets, num_items + 1))
    targets = torch.randint(1, num_items + 1, (num_targets,), device=device)
    weights = hidden.requires_grad_(), table.requires_grad_()

    def step() -> None:
        for weight in weights:
            weight.grad = None
        loss(hidden.to(dtype), table.to(dtype), targets).backward()  # type: ignore[no-untyped-call]

    try:
        memory = _peak_of(step) if device == "cuda" else {}
        taken = milliseconds(step, 20 if device == "cuda" else 7)
    except Exception as error:  # a library that cannot do this size or type is a finding
        return {"error": (str(error).splitlines() or [type(error).__name__])[0][:200]}
    found = {"milliseconds": taken} | memory
    if num_items <= COMPARED_ITEMS:
        gradients = [weight.grad for weight in weights]
        found["gradient_error"] = _error(gradients, weights, targets)
    return found


def _peak_of(step: Callable[[], None]) -> dict[str, float]:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return {"peak_mb": (torch.cuda.max_memory_allocated() - before) / 1e6}


def _error(found: list[Tensor | None], weights: tuple[Tensor, Tensor], targets: Tensor) -> float:
    hidden, table = (weight.detach().double().requires_grad_() for weight in weights)
    F.cross_entropy(hidden @ table[1:].T, targets - 1).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([hidden.grad.flatten(), table.grad.flatten()])  # type: ignore[union-attr]
    got = torch.cat([gradient.flatten() for gradient in found if gradient is not None]).double()
    return float((got - expected).norm() / expected.norm())


if __name__ == "__main__":
    main()
