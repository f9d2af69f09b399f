"""GLNet: the network, its file, and the import of the authors' checkpoints."""
