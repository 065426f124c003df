"""Two models of different families solve a problem together; every turn is shown in the tokens of both."""

import argparse
import asyncio
from contextlib import ExitStack

from longshort_reward.protocol import DEFAULT_PROMPTS, ROLES, Role, RolePrompts

from verl_longshort.core.environment import Environment, Limits
from verl_longshort.core.trajectory import Participant, Trajectory, run_trajectory
from verl_longshort.engines.factory import EngineSettings, open_engine

LIMITS = Limits(max_turns=8, long_turn_tokens=1024, short_turn_tokens=512, token_budget=4096)


async def solve(problem: str, paths: dict[Role, str], prompts: RolePrompts, limits: Limits) -> None:
    """Let the two models solve it, greedily, and show how."""
    with ExitStack() as engines:
        participants = {}
        for role, path in paths.items():
            # Any engine will do that continues token ids: one in this process, or a server's.
            tokenizer, engine = open_engine(
                path, EngineSettings(), max_num_seqs=1, seed=0, engines=engines, engines_of_command=len(paths)
            )
            participants[role] = Participant(
                tokenizer=tokenizer, generate=engine.generate, context_tokens=engine.max_model_len
            )
        show(
            await run_trajectory(problem, participants, Environment(limits), prompts, {"temperature": 0.0}),
            participants,
        )


def show(trajectory: Trajectory, participants: dict[Role, Participant]) -> None:
    """Print the turns. A view holds a trajectory as its role's model sees it."""
    for turn in trajectory.state.turns:
        lengths = []
        for role in ROLES:
            ids = participants[role].tokenizer.encode(turn.text, add_special_tokens=False)
            lengths.append(f"{len(ids)} tokens of {role}")
        print(f"{turn.role} ({', '.join(lengths)}): {turn.text}\n")
    for role in ROLES:
        view = trajectory.views[role]
        print(f"{role} sees {len(view.context_ids)} tokens, {sum(view.response_mask)} of them its own")
    print(f"ended as: {trajectory.state.stop_reason}")


def main() -> None:
    """Solve the problem of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("--long", required=True, help="Hugging Face folder or name")
    parser.add_argument("--short", required=True)
    parser.add_argument("--no-prompts", action="store_true", help="no system prompts, for models fine-tuned without")
    given = parser.parse_args()
    prompts = RolePrompts(long="", short="") if given.no_prompts else DEFAULT_PROMPTS
    asyncio.run(solve(given.problem, {Role.LONG: given.long, Role.SHORT: given.short}, prompts, LIMITS))


if __name__ == "__main__":
    main()
