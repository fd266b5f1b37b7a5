"""Built-in task adapters, one package each, and the data of the demonstrations."""
