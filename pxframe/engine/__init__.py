"""A model as a graph of paths: one trace of it, read as f, as g and as h.

``tracing`` makes the graph, a :class:`~pxframe.engine.graph.Trace`. ``factors`` separates values on paths from values
that only multiply them, and ``rules`` has a rule for each operation. ``reading`` defines the weights and gates of a
path network, and ``scaled`` holds values that cannot overflow. ``layers`` tells which layer an operation comes from,
``folding`` finds the batch norms that may become a part of a weight, and ``fused`` the rows of fused weights (queries,
keys, values). ``forward`` runs f alone; ``interpret`` runs f and any number of readings through the graph, node by
node.

Imports ``running`` and ``base``.
"""
