#!/bin/bash
# Embed the tiles of a run as an array of shards, then merge them: bash examples/slurm/embed.sh reports/mine 64
# A killed task continues when it runs again. Exit code 3 (skipped tiles) counts as success.
set -euo pipefail
run=${1:?give the run folder}
shards=${2:-64}
job=$(sbatch --parsable --job-name=histoheads-embed --array="1-$shards" --gpus=1 --requeue --wrap \
    "histoheads extract --run '$run' --shard \$SLURM_ARRAY_TASK_ID/$shards || [ \$? -eq 3 ]")
sbatch --job-name=histoheads-merge --dependency="afterok:$job" --wrap \
    "histoheads merge '$run'/shards/*.h5 --manifest '$run/manifest.csv' --out '$run/embeddings.h5'"
