"""What tickets do to a network, measured: the spectrum of its Neural Tangent Kernel, and the units that are left.

It looks at networks and tickets that are there. It neither prunes nor trains.
"""
