"""Weights that come from elsewhere, and the names they go by there."""
