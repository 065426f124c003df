#!/usr/bin/env bash
# The reward of Long⊗Short in verl's own trainer: GRPO on one model.
#   bash examples/stock_verl/run.sh MODEL TRAIN.parquet VAL.parquet [key=value ...]
set -euo pipefail
model=$1 train=$2 val=$3
shift 3
exec python -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    actor_rollout_ref.model.path="$model" \
    actor_rollout_ref.rollout.n=8 \
    data.train_files="$train" \
    data.val_files="$val" \
    data.train_batch_size=64 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
    reward.custom_reward_function.path=pkg://longshort_reward \
    reward.custom_reward_function.name=compute_score \
    trainer.logger=[console] \
    "$@"
