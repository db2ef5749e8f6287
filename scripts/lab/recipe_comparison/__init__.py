"""What `scripts/lab/compare_recipes.py` is made of: the rows, how one is trained, and the tables."""
