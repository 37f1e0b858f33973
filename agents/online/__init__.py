"""Online reinforcement learning by stable-baselines3: a trainer, and its models as agents."""
