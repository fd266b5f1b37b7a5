"""What pruning methods are made of: the base class of scorers, and the quantities they share.

``scorer`` is the base class. ``saliencies`` are sums over gradients, ``paths`` sums over paths, ``gated`` what gates on
channels give, and ``flops`` what a channel costs. ``prunable`` finds the weights that can be pruned, with ``watch``,
which sees the weights that a model uses. ``precision`` runs all of it in full precision.

Imports ``network``, ``passes``, ``engine``, ``ticket`` and the rooms below them.
"""
