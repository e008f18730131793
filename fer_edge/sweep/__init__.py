"""Grids and searches over shapes, pruning, precisions and providers, and the front that comes of them."""
