#!/bin/bash
# On each machine. A rank that dies ends all; torchrun starts them again from the last checkpoint, up to 20 times, on 1 to 4 machines.
# The batch must be divisible by ranks x accumulation for each number of machines.
torchrun --nnodes 1:4 --nproc-per-node 8 --max-restarts 20 --rdzv-id semhitok --rdzv-backend c10d --rdzv-endpoint "$1:29500" \
    -m semhitok.cli.train mllm_qwen2_5_7b --data DATA/mllm.json --out RUNS/mllm --shard full --compile --collective-timeout 300
