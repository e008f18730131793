"""`python -m fer_edge`: the same as `fer-edge`."""

from __future__ import annotations

from fer_edge.cli import main

if __name__ == "__main__":
    main(prog_name="fer-edge")
