"""PHEW: random walks over the channels of any network.

``scorer`` is the plug-in. ``graph`` goes through a trace and finds the channel that each value belongs to. It uses
``labels`` (tensors that say to which channel each element belongs) and ``places`` (the position of a weight in its
parameter). The result is the graph of ``units``. ``walk`` draws many walks over that graph at a time, and ``choice``
draws one member from each of many weighted groups.
"""
