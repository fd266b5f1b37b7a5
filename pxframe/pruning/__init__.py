"""From scores to tickets: the loop of rounds, what is kept after each, and the checks on the result.

Imports ``plugin``, ``scoring`` and the rooms below them.
"""
