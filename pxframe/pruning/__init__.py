"""From a model and images to a ticket.

``loop`` has :func:`pxframe.prune` and :func:`pxframe.score`. ``arguments`` and ``plan`` check what they are given,
``run`` makes a ticket from it with ``rounds``, and ``provenance`` writes down how. ``target`` reads targets like
``flops=0.5``, and ``aim`` finds the sparsity that reaches one. ``refitting`` has :func:`pxframe.refit`.

Imports ``selection``, ``plugin``, ``scoring`` and the rooms below them.
"""
