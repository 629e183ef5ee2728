"""Pictures for people: what the classes of a data set look like, and what a run confuses."""
