"""What a network costs: ``cost`` counts, ``clock`` takes the time of several networks in turn."""
