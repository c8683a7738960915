"""Kernels in C for training in float32 on a CPU.

A GRU's steps, causal linear and softmax attention, dropout, GELU gates, and cross-entropy over a catalogue. They are
compiled once for the processor at hand, by whatever C compiler is there. Without one, for other types, for widths that
are no multiple of 16, or where a layer's gradient is not wanted, torch's operations do the work.
"""
