"""Grids and searches over shapes, pruning, precisions and providers, and their Pareto front."""
