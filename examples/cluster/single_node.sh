#!/bin/bash
# All GPUs of one machine. The same command resumes; a dry run prepares everything, takes one step and reports its memory and time.
set -e
torchrun --nproc-per-node 8 -m semhitok.cli.train semhitok_256 --stage semantic --data DATA/coyo-50m --out RUNS/semhitok_256 --compile --dry-run
torchrun --nproc-per-node 8 -m semhitok.cli.train semhitok_256 --stage semantic --data DATA/coyo-50m --out RUNS/semhitok_256 --compile
