"""One rule for each operation that a path network knows; importing this package fills the table.

``table`` holds the operations; ``linear``, ``gates``, ``norms`` and ``shapes`` register the rules.
"""

from pxframe.engine.rules import gates, linear, norms, shapes

__all__ = ["gates", "linear", "norms", "shapes"]
