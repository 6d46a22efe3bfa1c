"""XGBoost head."""
