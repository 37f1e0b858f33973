"""Diffusion Forcing (Chen et al. 2024), in eight files. Read them in this order:

1. `noise`: the noise schedule, and what a network's output stands for.
2. `levels`: how training draws a noise level for each token.
3. `loss`: Algorithm 1.
4. `matrices`: scheduling matrices, the level of each token at each row of sampling.
5. `sampler`: Algorithm 2.
6. `costs`: what a cost is that steers sampling.
7. `guidance`: the step along the gradient of a cost.
8. `monte_carlo`: the mean of the costs over sampled futures.

Beside them, `bound` measures a denoiser by the variational bound. Letters: B sequences of T tokens with C columns; x noisy and
x0 clean tokens (B, T, C), normalized; k the level of each token (B, T), an integer from 0 to K; K the level of pure noise.
"""
