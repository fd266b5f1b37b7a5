"""One rule for each operation that a path network knows; importing this package fills the table.

``table`` holds the operations. ``products``, ``linear``, ``gates``, ``norms``, ``shapes``, ``fourier`` and ``sampling``
register the rules.
"""

from pxframe.engine.rules import fourier, gates, linear, norms, products, sampling, shapes

__all__ = ["fourier", "gates", "linear", "norms", "products", "sampling", "shapes"]
