"""Will an engine take this graph? Asked of the graph and a table, without the engine and without a GPU."""

from __future__ import annotations
