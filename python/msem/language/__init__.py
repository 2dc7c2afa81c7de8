"""Model text: expressions, grammar and statements with positions."""
