"""What a network costs, and layers that make use of zeros.

``cost`` counts parameters, operations and bytes, and ``clock`` takes the time of several networks in turn. ``csr`` has
layers that multiply only the weights that are not zero. ``cpu`` uses them where they are faster, and ``break_even``
says below which density they are. ``gpu`` stores 2:4 weights for a GPU, and ``sparse`` is what both return.
``shares`` compares the cost of a small network with the dense one's.
"""
