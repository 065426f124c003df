"""The `longshort` block of a chat; each key is documented in `config/chat.yaml` and `config/serve.yaml`."""

from longshort_reward.errors import UserError
from longshort_reward.settings import NonNegativeInt, SettingError
from pydantic import model_validator
from typing_extensions import Self

from verl_longshort.chat.effort import options_of
from verl_longshort.serve.settings import ServeSettings


class ChatSettings(ServeSettings):
    """Everything a chat depends on."""

    effort: str
    seed: NonNegativeInt | None
    question: str | None = None
    """From the command line: the one question of a chat without a conversation."""

    @model_validator(mode="after")
    def _check_effort(self) -> Self:
        try:
            options_of(self.effort, self.limits)
        except UserError as error:
            raise SettingError("effort", error.value, error.remedy) from None
        return self
