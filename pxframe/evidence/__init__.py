"""What tickets do to a network, measured: the spectrum of its Neural Tangent Kernel, and the units that are left.

``kernel`` computes the kernel, ``spectrum`` its eigenvalues, and ``width`` counts units. This room neither
prunes nor trains: it is given networks and tickets.
"""
