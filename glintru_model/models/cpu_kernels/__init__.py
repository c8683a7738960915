"""Kernels in C for training on a CPU: a GRU's steps, causal linear attention and causal softmax attention.

They are compiled once for the processor at hand, by whatever C compiler is there. Without one, for other types than
float32, for widths that are no multiple of 16, or where no gradient is wanted, the layers take torch's operations.
"""
