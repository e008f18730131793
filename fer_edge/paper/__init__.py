"""The study of the paper's tables: its systems trained under one protocol, compared, and reported beside its own."""
