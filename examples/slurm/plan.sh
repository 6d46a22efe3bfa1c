#!/bin/bash
# Train the networks of a plan (folds, seeds) as an array, one part a task, then do the rest in one job:
#   histoheads prepare --run reports/mine --data my_tiles --protocol logo --folds 5 --seeds 3
#   bash examples/slurm/plan.sh reports/mine --protocol logo --folds 5 --seeds 3 --data my_tiles
set -euo pipefail
run=${1:?give the run folder}
shift
list=$(python3 -c 'import json, sys
for part in json.load(open(sys.argv[1] + "/protocol.json"))["parts"]:
    print(part["name"], part["seed"])' "$run")
printf '%s\n' "$list" > "$run/parts.txt"
job=$(sbatch --parsable --job-name=histoheads-parts --array="1-$(wc -l < "$run/parts.txt")" --gpus=1 --requeue --wrap \
    "set -- \$(sed -n \${SLURM_ARRAY_TASK_ID}p '$run/parts.txt'); histoheads train --run '$run/parts/'\$1 --seed \$2")
words=$(printf ' %q' "$@")
sbatch --job-name=histoheads-report --dependency="afterok:$job" --wrap "histoheads --run '$run'$words || [ \$? -eq 3 ]"
