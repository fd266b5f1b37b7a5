"""A model as a graph of paths: one trace of it, read as f, as g and as h.

``trace`` makes the aten graph, a :class:`~pxframe.engine.graph.Trace`, from the operations that ``record`` saw;
``attention`` makes attention traceable, and ``layers`` tells which layer a node comes from. ``scaled`` holds values
that cannot overflow. ``reading`` defines the weights and gates of a path network. ``factors`` finds the values that
multiply paths without being paths themselves (attention weights). ``rules`` has one rule for each operation. ``reuse``
finds the operations that may write over their input. ``interpret`` runs f and any number of readings through the graph,
node by node.

Imports ``base``.
"""
