"""Personal data in texts: how many prompts hold which kind. Values are never kept, only ids.

Kinds whose numbers carry a checksum (cards, accounts) are checked by it, so a number of an order is
not taken for a card; names and addresses are not looked for.

    pii_kinds("Write to jane@example.com")     # ('email',)
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from pydantic import Field

from ccai_core.config import Config

PiiKind = Literal["email", "phone", "ip_address", "credit_card", "iban"]
PII_KINDS: tuple[PiiKind, ...] = get_args(PiiKind)

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_CARD = re.compile(r"(?<![\d-])[2-6](?:[ -]?\d){12,18}(?![ -]?\d)")
# By the numbers that issuers have: Visa, Mastercard, Amex, Diners, JCB, Discover, UnionPay.
_ISSUED = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|35\d{14}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
_FEWEST_DIGITS = 4
_FEWEST_DIGITS_OF_A_PHONE = 7


class PiiReport(Config):
    """Which prompts hold personal data, by kind."""

    prompts: Mapping[PiiKind, tuple[str, ...]] = Field({}, description="Ids of prompts by kind.")

    @property
    def counts(self) -> dict[PiiKind, int]:
        """How many prompts hold each kind."""
        return {kind: len(self.prompts.get(kind, ())) for kind in PII_KINDS}


def pii_kinds(text: str, region: str = "US") -> tuple[PiiKind, ...]:
    """Return the kinds of personal data in a text, in the order of `PII_KINDS`.

    Args:
        text: the text.
        region: the country (ISO 3166) whose telephone numbers may stand without their country code.
    """
    found: set[PiiKind] = set()
    if "@" in text and _EMAIL.search(text):
        found.add("email")
    if _digits(text) >= _FEWEST_DIGITS or "::" in text:
        found |= _numbers(text, region)
    return tuple(kind for kind in PII_KINDS if kind in found)


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _numbers(text: str, region: str) -> set[PiiKind]:
    found: set[PiiKind] = set()
    # What is recognised is taken out: part of a card's number looks like a telephone's.
    forms: tuple[tuple[PiiKind, re.Pattern[str], Callable[[str], bool]], ...] = (
        ("iban", _IBAN, _is_iban),
        ("credit_card", _CARD, _is_card),
        ("ip_address", _IPV4, _is_address),
        ("ip_address", _IPV6, _is_address),
    )
    for kind, pattern, is_one in forms:
        for match in pattern.findall(text):
            if is_one(match):
                found.add(kind)
                text = text.replace(match, " ; ")
    if _digits(text) >= _FEWEST_DIGITS_OF_A_PHONE and _has_phone(text, region):
        found.add("phone")
    return found


def _is_iban(text: str) -> bool:
    code = text.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _is_card(text: str) -> bool:
    number = re.sub(r"\D", "", text)
    digits = [int(digit) for digit in reversed(number)]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return bool(_ISSUED.fullmatch(number)) and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_address(text: str) -> bool:
    """Whether it is an address on the public internet: 127.0.0.1 is nobody's."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _has_phone(text: str, region: str) -> bool:
    from phonenumbers import Leniency, PhoneNumberMatcher

    return PhoneNumberMatcher(text, region, leniency=Leniency.VALID).has_next()
