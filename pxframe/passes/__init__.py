"""Passes of a network over batches of data, a part of the data at a time.

``batches`` holds the data that is scored on. ``gradients`` sums gradients and Hessian products over it, ``samples``
gives the gradients of single samples. ``sweep`` gives the inputs of every layer, which ``products`` reads as matrix
products.

Imports ``engine``, ``running`` and ``base``.
"""
