"""A ticket: masks of weights, their file, and what they do to a model and an optimizer.

Imports ``base``.
"""
