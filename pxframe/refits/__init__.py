"""What becomes of the weights that a mask keeps, and of batch norm's statistics: after the last round, for any method.

``table`` has the names that users give. ``norms`` measures the statistics of batch norm anew. ``obs`` gives each layer
the weights that come closest to the dense layer's outputs, which ``least_squares`` finds. ``fan_in`` scales the
weights, or draws them anew, for the inputs that are left.

Imports ``scoring``, ``engine`` and ``base``.
"""
