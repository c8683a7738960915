"""Kernels in C for float32 on a CPU.

A GRU's steps, causal linear and softmax attention, dropout, GELU gates, and cross-entropy over a catalogue, with their
gradients. Where none is wanted, all of SASRec, what GLINT-RU carries through time, and the best of a row of scores.
They are compiled once for the processor at hand, by whatever C compiler is there. Without one, for other types, and for
widths that are no multiple of 16, torch's operations do it.
"""
