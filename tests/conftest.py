"""One thread for every test and every process it starts.

Results that must agree to the last bit (resumed and uninterrupted, two ranks and one) agree at an equal number of threads:
sums are split differently otherwise.
"""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402

torch.set_num_threads(1)
