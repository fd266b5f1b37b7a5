"""From scores to masks: what is kept after a round, and whether the network still works with it.

``schedule`` says how much each round keeps, ``distribution`` how much each layer. ``threshold`` keeps the best.
``granularity`` turns scores of weights into those of channels or patterns, ``joined`` into those of channels that go
together, and ``rows`` knows the parts of fused weights. ``checks`` says what must hold before and after.

Imports ``scoring``, ``network`` and the rooms below them.
"""
