"""GRPO with TRL and the reward of Long⊗Short; rows of the data have `prompt` and `ground_truth`."""

import argparse

from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

from reward import synergy


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="Hugging Face folder or name")
    parser.add_argument("--data", required=True, help=".jsonl")
    parser.add_argument("--output", required=True, help="folder")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--generations", type=int, default=8, help="completions of each problem")
    parser.add_argument("--tokens", type=int, default=512, help="most tokens of a completion")
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()
    config = GRPOConfig(
        output_dir=given.output,
        max_steps=given.steps,
        num_generations=given.generations,
        per_device_train_batch_size=given.generations,
        max_completion_length=given.tokens,
        use_cpu=given.cpu,
        bf16=not given.cpu,
        report_to="none",
        logging_steps=1,
    )
    rows = load_dataset("json", data_files=given.data, split="train")
    GRPOTrainer(model=given.model, args=config, reward_funcs=synergy, train_dataset=rows).train()


if __name__ == "__main__":
    main()
