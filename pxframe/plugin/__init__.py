"""What others add: hooks, the host that finds plug-ins, and the base classes of backbone providers and tasks.

``hookspecs`` is the manual. Imports ``base``, and ``scoring`` and ``ticket`` for their types.
"""
