"""Many runs from one config: a job's tickets, its stages, the files they leave, and the results as table and figure.

Imports ``pruning``, ``training``, ``plugin``, ``ticket`` and ``base``. Tasks, on images or not, come from plug-ins.
"""
