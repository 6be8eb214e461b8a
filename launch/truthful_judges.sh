#!/usr/bin/env bash
# Trains the two judges of TruthfulQA in folds, and measures them on held-out questions.
#
#   bash launch/truthful_judges.sh BASE LABELS OUT [VARIANT [NUMBER]]
#
# BASE is the workdir of an imported language model, such as SmolLM2; LABELS the folder
# of finetune_truth.jsonl and finetune_info.jsonl (github.com/sylinrl/TruthfulQA, data/);
# OUT the folder of the judges. VARIANT is one of configs/sft.py, by default smollm2_cpu
# with 2,000 labels a judge; on a GPU give smollm2, which learns from all of them.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
fi
# shellcheck source=launch/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env eval
go_back

base=$(realpath "$1") labels=$(realpath "$2") out=$(realpath "$3")
variant=${4:-smollm2_cpu}
number=0
if [[ $variant == smollm2_cpu ]]; then number=2000; fi

python -m instructgpt.truthful records "$labels" "$out" --number="${5:-$number}"
for kind in truth info; do
  for fold in 0 1; do
    python -m instructgpt.main --config="$root/configs/sft.py:$variant" \
      --workdir="$out/$kind/$fold/sft" \
      --config.init.path="$base" \
      --config.data.tokenizer="$base/tokenizer" \
      --config.data.jsonl="$out/$kind/$fold/records" \
      --config.data.dir="$out/$kind/$fold/data" \
      --config.data.template=none \
      --config.data.max_prompt=120 \
      --config.data.max_response=8 \
      --config.sft.pack_length=256 \
      --config.sft.num_samples=0 \
      --config.train.batch_size=8 \
      --config.train.num_steps=0 \
      --config.train.num_epochs=1 \
      --config.train.log_every=5 \
      --config.train.keep=1
  done
done
python -m instructgpt.truthful measure "$labels" "$out"
