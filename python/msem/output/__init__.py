"""Tables and summaries as data frames, text and HTML."""
