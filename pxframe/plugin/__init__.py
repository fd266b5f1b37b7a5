"""What others add: the hooks, and the base classes of backbone providers and tasks.

``hookspecs`` is the manual. ``host`` finds and loads plug-ins, ``registry`` builds what they registered, by name.
``checkpoint`` reads weights from a file for backbone providers.

Imports ``scoring``, ``ticket`` and ``base``.
"""
