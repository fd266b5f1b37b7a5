"""From a model to its graph of aten operations.

``trace`` makes the graph from the operations that ``record`` saw. ``unfused`` makes attention and recurrent layers
traceable, and ``reuse`` finds the operations that may write over their input.
"""
