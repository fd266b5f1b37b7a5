"""PX (Path eXclusion), and the authors' published program beside it.

``scorer`` is the plug-in; it reads paths with the engine of pxframe. ``official`` has the variant of that name, which
needs no engine: it runs the model three times. ``replay`` watches the first of these runs and changes the other two.
"""
