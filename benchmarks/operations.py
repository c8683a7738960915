"""How many operations a training target costs, from the layers' shapes; a multiply-add counts as two.

Counted are the matrix products of the forward pass, of real positions (padding is waste), taken three times for
forward and backward; nothing that is computed twice. D width, K head width, V items, n inputs of a window.

    GLINT-RU, a position: 2 D^2 (18 + 2 kernel_size)  W0 1, GRU 6, channel crossing 1, selective gate 1, query/key/value
                          3, attention output 1, data-aware gate 1 and its output 1, gated MLP 3, two convolutions
                          + 4 D K                     the state's update and its product with the query
    SASRec, a position:   12 D^2                      query/key/value 3, output 1, network 2
                          + 4 D t                     scores and sum over the t positions up to this one
    a target:             2 D V                       cross-entropy over the catalogue
"""

from collections.abc import Iterable

from glintru_model.config import GlintruConfig, SasrecConfig


def training_operations(architecture: GlintruConfig | SasrecConfig, num_items: int, lengths: Iterable[int]) -> float:
    """Return the operations per target of training every position of windows with these numbers of inputs."""
    dim, blocks = architecture.embedding_dim, architecture.num_blocks
    lengths = list(lengths)
    if isinstance(architecture, GlintruConfig):
        position: float = 2 * dim**2 * (18 + 2 * architecture.kernel_size) + 4 * dim * (dim // architecture.num_heads)
    else:
        visible = sum(n * (n + 1) // 2 for n in lengths) / sum(lengths)
        position = 12 * dim**2 + 4 * dim * visible
    return 3 * (blocks * position + 2 * dim * num_items)
