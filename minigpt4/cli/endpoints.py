"""Options about models that are behind an OpenAI-compatible endpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .options import Group, System
from .terminal import remark

_PANEL = "Endpoints (--model http://host/v1#NAME)"
KeyEnv = Annotated[str, typer.Option(help="Variable that holds the key.", rich_help_panel=_PANEL)]
Prices = Annotated[str | None, typer.Option(help="IN,OUT: money for a million tokens.", rich_help_panel=_PANEL)]
MaxCost = Annotated[float | None, typer.Option(min=0.0, help="Money to spend at most.", rich_help_panel=_PANEL)]
KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Account:
    """How an endpoint is paid."""

    key_env: str = KEY
    prices: str | None = None
    max_cost: float | None = None

    @property
    def price(self) -> tuple[float, float]:
        """Money for a million tokens in, and out."""
        return prices_of(self.prices)


ACCOUNT = Group({"key_env": (KeyEnv, KEY), "prices": (Prices, None), "max_cost": (MaxCost, None)}, Account)


def is_endpoint(model: str) -> bool:
    """Whether a model is named by an address."""
    return model.startswith(("http://", "https://"))


def prices_of(given: str | None) -> tuple[float, float]:
    """What --prices says: two numbers. Raises UserError."""
    if given is None:
        return 0.0, 0.0
    try:
        read, written = (float(part) for part in given.split(","))
    except ValueError:
        raise UserError(f"--prices {given}: expected two numbers like 0.15,0.60") from None
    return read, written


def endpoint(name: str, account: Account, cache: Path | None = None) -> Any:
    """The endpoint at ``URL#MODEL``. Raises UserError where the model is not named."""
    from ..dialogue.endpoint import Endpoint, Limits

    url, _, model = name.partition("#")
    if not model:
        raise UserError(f"{name}: name the endpoint's model too: {url}#MODEL")
    limits = Limits(cost=account.max_cost)
    return Endpoint(url, model, key_env=account.key_env, prices=account.price, limits=limits, cache=cache)


class Who:
    """The system that a benchmark asks: one that is loaded here, or one behind an endpoint.

    Raises:
        UserError: options for what is loaded here, with an endpoint; or the other way round.
    """

    def __init__(self, system: System, account: Account, settings: dict[str, Any]):
        self._system, self._account, self._settings = system, account, settings
        self._loaded: Any = None
        if is_endpoint(system.model):
            given = {"device": system.device, "dtype": system.dtype, "quantize": system.quantize}
            if wrong := [f"--{name}" for name, value in given.items() if value is not None]:
                raise UserError(f"{', '.join(wrong)}: for a system that is loaded here, not for an endpoint; leave it out")
        elif account != Account():
            raise UserError("--key-env, --prices and --max-cost go with an endpoint: --model http://host/v1#NAME")

    @property
    def by(self) -> str:
        """Who answers, as the rows of answers say it."""
        from ..jobs.made_by import signature

        return signature(self._system.model, self._settings | self._system.kept_as)

    def load(self) -> Any:
        """The system, loaded or connected; the same one each time."""
        if self._loaded is None:
            if is_endpoint(self._system.model):
                from ..evaluate.served import connect

                account = self._account
                self._loaded = connect(
                    self._system.model,
                    self._settings,
                    key_env=account.key_env,
                    prices=account.price,
                    max_cost=account.max_cost,
                )
            else:
                self._loaded = self._system.as_named.load()
        return self._loaded

    def tell_cost(self) -> None:
        """Say what was spent, if anything was."""
        served = getattr(self._loaded, "endpoint", None)
        if served is not None and served.spent.cost:
            remark(f"spent: {served.spent.cost:.4f}")
