"""Training on several processes of one machine: torchrun's launcher starts them, one parent writes what they tell."""
