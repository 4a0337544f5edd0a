"""Personal data is found by its form and checksum; what only looks like it is not."""

from __future__ import annotations

import pytest

from ccai_core.prompts.pii import PiiReport, pii_kinds


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jane.doe+x@mail.example.co.uk, please", ("email",)),
        ("Call me at (212) 456-7890", ("phone",)),
        ("Call +44 20 7946 0958 tonight", ("phone",)),
        ("Her address is 8.8.8.8 or so", ("ip_address",)),
        ("and 2001:4860:4860::8888", ("ip_address",)),
        ("My card 4111 1111 1111 1111 was declined", ("credit_card",)),
        ("Pay to DE89 3704 0044 0532 0130 00.", ("iban",)),
        ("GB82WEST12345698765432 and a@example.org", ("email", "iban")),
    ],
)
def test_each_kind(text: str, kinds: tuple[str, ...]) -> None:
    assert pii_kinds(text) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "No data at all", "a @ b, user@host, @name", "My card 4111 1111 1111 1112 was declined",
        "DE89 3704 0044 0532 0130 01", "127.0.0.1 and 192.168.1.10 and 999.1.1.1",
        "version 1.2.3.4.5", "0000 0000 0000 0000", "In 1914 and 1939, 1.5 million of 12,345,678",
        "std::vector", "12:30:45", "order 20240115-000123", "",
    ],
)  # fmt: skip
def test_what_only_looks_like_it(text: str) -> None:
    assert pii_kinds(text) == ()


def test_numbers_without_a_country_are_those_of_the_region() -> None:
    paris = "Appelez le 01 42 68 53 00 demain"
    assert pii_kinds(paris) == ()
    assert pii_kinds(paris, "FR") == ("phone",)


@pytest.mark.parametrize("part", ["1 555 ", "1.1.", "5 ", "GB12 ", "a@b.", "1:", "::", "(1", "+1"])
def test_a_long_text_takes_no_long_time(part: str) -> None:
    pii_kinds(part * (20_000 // len(part)))  # the test's time limit would tell


def test_a_report_counts_prompts_and_has_no_values() -> None:
    report = PiiReport(prompts={"email": ("a", "b")})
    assert report.counts == {"email": 2, "phone": 0, "ip_address": 0, "credit_card": 0, "iban": 0}
