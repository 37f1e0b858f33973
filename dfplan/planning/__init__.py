"""Planning with a trained model: what is asked for, plans, the planner, and following a plan."""
