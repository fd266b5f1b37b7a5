"""One training run: a task's data and model in an mmengine runner, trained, tested and saved.

Imports ``plugin``, ``ticket`` and ``base``.
"""
