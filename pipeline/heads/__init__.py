"""Fit classifier heads on embeddings: softmax, SVM, XGBoost, baselines."""
