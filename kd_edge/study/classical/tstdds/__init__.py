"""TSTDDs: three streams, trajectory pooling, locality-constrained coding, a linear SVM."""
