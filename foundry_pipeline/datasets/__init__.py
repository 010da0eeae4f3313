"""Datasets: pairs put together by a recipe, named by their content, and checked before anything trains on them."""
