"""One process of a fine-tuning, as torchrun starts it: `-m verl_longshort.verl_plugin.sft key=value ...`."""

import sys

from longshort_reward.errors import UserError

from verl_longshort.base.console import say
from verl_longshort.base.errors import RunDiedError
from verl_longshort.verl_plugin.sft.fine_tune import checked_config, fine_tune


def main() -> int:
    try:
        overrides = sys.argv[1:]
        fine_tune(checked_config(overrides), overrides)
    except UserError as error:
        say(f"error: {error}", stream=sys.stderr)
        return 2
    except RunDiedError as error:
        say(f"error: {error}", stream=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
