"""What multiplies the values on paths and has no paths through it: attention weights, gates, computed weights.

``roles`` tells which values paths lead through, and which are factors. ``values`` gives the values of the latter,
``computed`` those of weights that are computed from parameters. ``sharing`` lets paths end in factors as well.
"""
