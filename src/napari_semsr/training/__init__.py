"""Recipes, data and the loop that make a model."""
