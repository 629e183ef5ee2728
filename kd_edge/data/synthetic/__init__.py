"""A generated data set and an endless stream of a figure that performs ten actions in two bands."""
