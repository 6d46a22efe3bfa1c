"""Classifier heads on embeddings: softmax, SVM, XGBoost; one interface."""
