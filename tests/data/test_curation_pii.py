"""Personal data is found, and numbers that only look like it pass."""

import pytest

from instructgpt.data.curation.pii import find_pii, luhn

TOKEN = "a1B2c3D4e5" * 4  # in pieces, lest a scanner of secrets takes it for one


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("email", "jo.doe+news@mail.example.co.uk"),
        ("email", "JO_DOE@EXAMPLE.COM"),
        ("email", "jörg@bücher.example"),
        ("url_login", "https://jo:secret@db.example.com"),
        ("url_login", "ftp://jo@files.example"),
        ("url_login", "postgres+tcp://jo:p4ss@10.0.0.1"),
        ("api_key", "sk-" + TOKEN),
        ("api_key", "sk-proj-" + TOKEN),
        ("api_key", "AKIA" + "ABCDEFGH01234567"),
        ("api_key", "ghp_" + TOKEN[:36]),
        ("api_key", "xoxb-" + "1234567890"),
        ("api_key", "AIza" + TOKEN[:35]),
        ("api_key", "-----BEGIN RSA PRIVATE " + "KEY-----"),
        ("api_key", "eyJ" + TOKEN + ".eyJ" + TOKEN + "." + TOKEN),
        ("card", "4111111111111111"),
        ("card", "4111 1111 1111 1111"),
        ("card", "5500-0000-0000-0004"),
        ("card", "3400 000000 00009"),
        ("card", "6011000000000004"),
        ("iban", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "DE89370400440532013000"),
        ("iban", "NL91ABNA0417164300"),
        ("ssn", "078-05-1120"),
        ("phone", "415-555-0132"),
        ("phone", "(415) 555-0132"),
        ("phone", "+1 415.555.0132"),
        ("phone", "1-800-555-0199"),
        ("phone", "+44 20 7946 0958"),
        ("phone", "+49 (30) 901820"),
        ("phone", "+4915112345678"),
        ("phone", "Phone: 0171 1234567"),
        ("phone", "tel. 06 12 34 56 78"),
        ("phone", "mobile number is 07700900123"),
        ("phone", "WhatsApp me at 98765 43210"),
        ("ip_address", "203.0.114.25"),
        ("ip_address", "2a00:1450:4001:81b::200e"),
        ("street_address", "221B Baker Street, London NW1 6XE"),
        ("street_address", "1600 Pennsylvania Avenue NW, Washington, DC 20500"),
        ("street_address", "12 Oak St., Apt 4"),
    ],
)
def test_personal_data_is_found_where_it_stands(kind, data):
    for before, after in [
        ("", ""),
        ("write to ", ", please"),
        ("(", ")."),
        ("\n", "\n"),
    ]:
        if data.startswith("(") and before == "(":
            continue
        text = before + data + after
        found = find_pii(text)
        assert found is not None, text
        assert found.kind == kind
        matched = text[found.start : found.end]
        assert matched in data and len(matched) >= min(len(data), 8), matched


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A story of 1984, of 2001 to 2010 and of 1939-1945.",
        "On 2024-01-15 at 10:30:45, or 15.01.2024, or 01/15/2024.",
        "It costs $1,299.99, 12.500.000 yen or 12 500 000 000 pounds.",
        "ISBN 978-0-306-40615-7, ISBN 9780306406157, ISBN 0-306-40615-2",
        "12345 * 67890 = 838102050 and 3 + 5551234567 = 5551234570",
        "What is 3 +5551234567 and 1000000000000000 - 1?",
        "pi is 3.14159265358979323846264338327950288",
        "4111 1111 1111 1112 has a wrong check digit, 9999999999999995 no issuer",
        "GB82 WEST 1234 5698 7654 33 has a wrong check sum",
        "the numbers 200 300 4000, 555 1234567 and 000-12-3456",
        "telephone was invented in 1876; phone 2019/2020, mobile 2024-01-15",
        "call f(12345678), cell A1:B22, fax machines: 12345",
        "version 1.2.3.40, v10.20.30.40, chapter 1.2.3.4, 1.2.3.4.50, 300.20.30.40",
        "127.0.0.1, 10.1.2.3 and 192.168.0.10 are at home, fe80::1:2:3:44 too",
        "std::vector<a::b>, dead::beef, 12:30:45:10, 00:1a:2b:3c:4d:5e",
        "the handle @jo, user@localhost, a@b, W@x.dot(y), f@x",
        "git@github.com:jo/code.git and ssh://git@example.com/code",
        "https://example.com/@jo/post?mail=a@b and http://example.com:8080/",
        "task-based-learning-with-computers, a risk-averse-investor-from-nowhere",
        "sk-learn-is-a-library-of-many-estimators",
        "In 1929 Wall Street crashed. 5 Main Street is a film, 24 Hours a Way",
        "7 Samurai Way of Life, 100 Years of Solitude; 12 Monkeys",
        "x" * 5000 + "@",
        "1" * 5000,
        "1 " * 5000,
        "+1" * 5000,
    ],
)
def test_what_is_nobodys_passes(text):
    assert find_pii(text) is None


@pytest.mark.parametrize("number", ["79927398713", "4111111111111111", "0", "18"])
def test_check_digits_by_hand(number):
    assert luhn(number)
    assert not luhn(number[:-1] + str((int(number[-1]) + 1) % 10))


def test_the_first_of_several_is_told_by_the_order_of_the_rules():
    found = find_pii("415-555-0132 or jo@example.com")
    assert found == ("email", 16, 30)
