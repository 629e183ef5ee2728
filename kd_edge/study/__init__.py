"""Studies: many runs from one file, their progress, and tables of what they gave beside what was published."""
