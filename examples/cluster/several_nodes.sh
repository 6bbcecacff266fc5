#!/bin/bash
# On each of two machines, with the address of the first one: several_nodes.sh node0. RUNS is on storage that both see.
torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id semhitok --rdzv-backend c10d --rdzv-endpoint "$1:29500" \
    -m semhitok.cli.train mllm_qwen2_5_7b --data DATA/mllm.json --out RUNS/mllm --shard hybrid --compile --collective-timeout 300
