"""Random walks over the channels of any network.

``graph`` reads off a trace which channel each value belongs to, with ``labels`` that travel through the operations and
``places`` of weights; ``units`` is what comes of it; ``walk`` draws walks over it, many at a time, by ``choice``.
"""
