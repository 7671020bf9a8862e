"""What the training stages share: the model, its data, the mixture, the optimiser, checkpoints, the loop."""
