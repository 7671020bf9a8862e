"""What the training stages share: the model, its data, the mixture, the optimiser, checkpoints, the loop."""

import os

# OpenMP's threads spin while they wait for each other; where anything else runs on the same cores they take it
# from the one they wait for. A short spin, on two cores: 17,600 to 18,800 tokens/s alone and 7,600 with tests
# running beside it; libgomp's own default 11,300 and 1,800; no spin (OMP_WAIT_POLICY=PASSIVE) 13,500 alone.
# It is read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
