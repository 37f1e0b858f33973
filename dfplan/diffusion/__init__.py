"""Diffusion Forcing (Chen et al. 2024), in eight files. Read them in this order:

1. `noise`: the noise schedule; noise is added to a token by its level, and a network's output is read as a clean token.
2. `levels`: how training draws a noise level for each token.
3. `loss`: Algorithm 1, the loss of a denoiser.
4. `matrices`: scheduling matrices, the level of each token at each row of sampling.
5. `sampler`: Algorithm 2, sampling by a scheduling matrix.
6. `costs`: functions of predicted tokens that steer sampling.
7. `guidance`: the step along the gradient of a cost.
8. `monte_carlo`: the mean of the costs over sampled futures.

`bound`, beside them, measures a denoiser by the variational bound on the likelihood.

Letters: B sequences of T tokens with C columns; x noisy and x0 clean tokens (B, T, C), normalised; K the level of pure
noise. The word `levels` means one thing here, an integer in 0..K for each token, (B, T), which formulas call k; configs
of models, which cannot use letters, have a field `levels` for K.
"""
