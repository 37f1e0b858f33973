"""D4RL's point mazes: layouts, physics, environment, expert, collection."""
