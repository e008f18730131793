"""The paper's tables, run: its systems trained under one protocol, compared, and written beside its own figures."""
