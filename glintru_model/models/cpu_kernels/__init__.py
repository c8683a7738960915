"""Kernels in C for float32 on a CPU.

A GRU's steps, causal linear and softmax attention, dropout, GELU gates, and cross-entropy over a catalogue, with their
gradients; and a block of SASRec where none is wanted. They are compiled once for the processor at hand, by whatever C
compiler is there. Without one, for other types, and for widths that are no multiple of 16, torch's operations do it.
"""
