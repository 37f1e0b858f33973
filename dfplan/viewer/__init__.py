"""A page in the browser: choose a maze's start and goal, or a robot's task, watch a plan being denoised, and watch it driven.

python -m dfplan.viewer --env maze2d-large

The viewer is the roof of the house: it shows environments and agents, and nothing imports it.
"""
