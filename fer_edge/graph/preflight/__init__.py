"""Pre-flight: would an engine accept this graph? Answered from the graph and one table of rules, without a GPU."""
