"""What the training stages share: the model, its data, the mixture, the optimiser, checkpoints, the loop."""

import os

# OpenMP's threads spin while they wait for each other, and where anything else runs on the same cores they take
# it from the one they wait for: 8,050 tokens/s became 310 on two busy cores. It is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
