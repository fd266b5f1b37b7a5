"""What a scorer sees: the network as a function of its weights, the batches, and the quantities read off its paths.

Imports ``engine``, ``ticket`` and ``base``.
"""
