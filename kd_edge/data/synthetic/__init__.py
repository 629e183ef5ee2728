"""The generated data set and the endless stream: a figure that performs ten actions in two bands."""
