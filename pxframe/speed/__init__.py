"""What a network costs, and layers that make use of zeros.

``cost`` counts, ``clock`` takes the time of several networks in turn. ``csr``: layers that multiply only what is not
zero; ``cpu`` uses them where they are faster, ``break_even`` says from which density on they are; ``gpu``: 2:4 weights;
``sparse``: what both have in common.
"""
