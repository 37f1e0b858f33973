"""What is special to each family of environments: widths, budgets, scores."""
