"""What pruning methods are made of: the base class of scorers, and the quantities they share.

``scorer`` is the base class. ``saliencies`` has sums over gradients, ``paths`` sums over paths, ``gated`` finds what a
mask entry on a channel multiplies, and ``flops`` counts the cost of a channel. ``prunable`` finds the weights that can
be pruned, with ``watch``, which sees the weights that a model uses. ``precision`` has torch compute in full float32.

Imports ``network``, ``passes``, ``engine``, ``ticket`` and the rooms below them.
"""
