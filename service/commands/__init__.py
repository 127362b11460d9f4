"""Commands of operators, a file for each group."""
