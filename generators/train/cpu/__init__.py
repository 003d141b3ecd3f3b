"""The parts of `generators.train.cpu_engine`: a decoder's forward and backward in numpy, for machines without a GPU."""
