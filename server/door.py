"""Who comes in: the key that a request shows, and the account that it has."""

from collections.abc import Iterable

from server.accounts import Account, Accounts
from server.keys import ANYONE, Key, KeyFile
from server.refusal import Forbidden, Header, Unauthorized
from server.routes import Route

BEARER = b"bearer "


class Door:
    """Without `keys` it lets in anyone."""

    def __init__(self, keys: KeyFile | None) -> None:
        self._keys = keys
        self._accounts = Accounts()
        self.since = self._accounts.since
        """Since when accounts are kept."""

    def account(self, route: Route, headers: Iterable[Header]) -> Account:
        """Whose request it is.

        Raises: Unauthorized, Forbidden.
        """
        if self._keys is None or route.access == "anyone":
            return self._accounts.of(ANYONE)
        key = find_key(self._keys, headers)
        if route.access == "metrics" and not key.metrics:
            raise Forbidden("This key may not read the metrics (malmoi-serve keys add --metrics).")
        return self._accounts.of(key)


def find_key(keys: KeyFile, headers: Iterable[Header]) -> Key:
    """The valid key in `headers`; raises Unauthorized."""
    shown = [value for name, value in headers if name == b"authorization"]
    if len(shown) != 1 or shown[0][: len(BEARER)].lower() != BEARER:
        raise _unauthorized("Send your key: Authorization: Bearer KEY.")
    key = keys.find(shown[0][len(BEARER) :].strip())
    if key is None:
        raise _unauthorized("There is no such key.")
    if key.has_expired():
        raise _unauthorized("This key has expired.")
    return key


def _unauthorized(message: str) -> Unauthorized:
    return Unauthorized(message, code="invalid_api_key", headers=[(b"www-authenticate", b"Bearer")])
