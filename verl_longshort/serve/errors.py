"""Why a request is not answered. The HTTP server makes a status and OpenAI's error object of each."""


class ServeError(Exception):
    """A request that is not answered; the message is one sentence for whoever sent it."""

    status = 500
    kind = "server_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """The field of the request that is wrong."""
        self.code = code


class RequestError(ServeError):
    """The request is wrong."""

    status = 400
    kind = "invalid_request_error"


class BusyError(ServeError):
    """As many requests wait as may."""

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, code="queue_full")
        self.retry_after_s = retry_after_s


class EngineError(ServeError):
    """A model of the pair gives no answers."""

    status = 503


class LateError(ServeError):
    """The answer took longer than a request may."""

    status = 504
