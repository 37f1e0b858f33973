"""All that is special to a family of environments: widths, budgets, scores."""
