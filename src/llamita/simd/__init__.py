"""SIMD vectors as Numba values: the vocabulary that the engine's kernels (and train's CPU attention) are written in.

isa.py says what the processor can do, vectors.py holds the values and arithmetic, memory.py loads and stores, atomics.py what
threads need to meet, kernel.py the one decorator for compiled functions. Importing anything here but isa.py imports Numba.
"""
