"""SVM head: exact and approximate kernels."""
