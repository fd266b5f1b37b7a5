"""A model as a graph of paths: one trace of it, read as f, as g and as h.

``trace`` makes the aten graph, a :class:`~pxframe.engine.graph.Trace`, from the operations that ``record`` saw.
``unfused`` makes attention and recurrent layers traceable, and ``layers`` tells which layer a node comes from.
``roles`` finds which values paths lead through, and which only multiply them; ``factors`` gives the values of the
latter (attention weights), ``computed`` those of weights that are computed from parameters. ``reading`` defines the
weights and gates of a path network, ``scaled`` holds values that cannot overflow, ``rules`` has one rule for each
operation. ``reuse`` finds the operations that may write over their input, ``folding`` the batch norms that may become
a part of a weight. ``forward`` runs f alone, ``interpret`` runs f and any number of readings through the graph, node by
node.

Imports ``base``.
"""
