r"""The string formats of JSON Schema's `format`, as regular expressions.

    date, time, date-time   RFC 3339: 2026-02-28, 12:30:00Z, 2026-02-28T12:30:00.5+01:00; valid
                            calendar days, an offset in every time, no leap seconds
    duration                RFC 3339, appendix A: P1Y2M, P3DT4H, PT5M6S, P7W
    uuid                    RFC 9562; uuid1 and uuid3 to uuid8 for one version (pydantic)
    email, hostname         RFC 5321's dot-string at a hostname with a dot; RFC 1123's labels, with
                            limits of parts that keep the whole within the limits of these standards
    ipv4, ipv6              RFC 2673, RFC 4291; ipvanyaddress for either (pydantic)
    uri                     RFC 3986: a scheme with a path, or with a host (a name or an ipv4
                            address, optionally a port of up to four digits)

Other formats are annotations and do not constrain anything, as the standard says.

Source: json-schema.org/draft/2020-12, Validation, section 7.3.
"""

from __future__ import annotations

from functools import lru_cache

from groundup.generation.grammar import Automaton
from groundup.generation.regular_expressions import Patterns

_YEAR = r"(\d{3}[1-9]|\d\d[1-9]0|\d[1-9]00|[1-9]000)"  # from 0001
_LEAP = r"(\d\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|"
    rf"02-(0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)"
)
_HOUR = r"([01]\d|2[0-3])"
_TIME = rf"{_HOUR}:[0-5]\d:[0-5]\d(\.\d{{1,6}})?(Z|[+-]{_HOUR}:[0-5]\d)"
# At most six digits of each, so that their sum does not overflow.
_COUNT = r"\d{1,6}"
_OF_DAY = rf"T({_COUNT}H({_COUNT}M({_COUNT}S)?)?|{_COUNT}M({_COUNT}S)?|{_COUNT}S)"
_DURATION = (
    rf"P({_COUNT}W|{_OF_DAY}|({_COUNT}D|{_COUNT}M({_COUNT}D)?|"
    rf"{_COUNT}Y({_COUNT}M({_COUNT}D)?)?)({_OF_DAY})?)"
)
_HEX = "[0-9a-fA-F]"
# Six labels of at most 30 characters: a name has at most 253 characters, an address 254. The last
# label begins with a letter, so that no IPv4 address is a name.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,28}[A-Za-z0-9])?"
_LAST = r"[A-Za-z]([A-Za-z0-9-]{0,28}[A-Za-z0-9])?"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_GROUP = rf"{_HEX}{{1,4}}"
# "::" replaces at least one group.
_IPV6 = "|".join(
    [
        rf"{_GROUP}(:{_GROUP}){{7}}",
        rf"{_GROUP}(:{_GROUP}){{5}}:{_IPV4}",
        *(
            (rf"{_GROUP}(:{_GROUP}){{{left - 1}}}" if left else "")
            + rf"::({_GROUP}(:{_GROUP}){{0,{6 - left}}})?"
            for left in range(7)
        ),
        rf"{_GROUP}(:{_GROUP}){{6}}::",
        *(
            (rf"{_GROUP}(:{_GROUP}){{{left - 1}}}" if left else "")
            + rf"::({_GROUP}:){{0,{5 - left}}}{_IPV4}"
            for left in range(6)
        ),
    ]
)
# At most 63 characters before the @; the standard allows 64.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LETTER = rf"([A-Za-z0-9._~!$&'()*+,;=:@-]|%{_HEX}{_HEX})"
_PATH, _QUERY = f"({_LETTER}|/)*", rf"({_LETTER}|[/?])*"
# Labels of a uri's host have no maximum length: counting would multiply the states by maxLength.
_NAME = r"(([A-Za-z0-9]+(-+[A-Za-z0-9]+)*)\.)*[A-Za-z][A-Za-z0-9]*(-+[A-Za-z0-9]+)*"
_URI = (
    rf"[A-Za-z][A-Za-z0-9+.-]*:(//({_NAME}|{_IPV4})(:[1-9]\d{{0,3}})?(/{_PATH})?|/?{_LETTER}{_PATH})"
    rf"(\?{_QUERY})?(#{_QUERY})?"
)
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "uuid": rf"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}",
    "email": rf"{_ATOM}(\.?{_ATOM}){{0,31}}@({_LABEL}\.){{1,5}}{_LAST}",
    "hostname": rf"({_LABEL}\.){{0,5}}{_LAST}",
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": f"{_IPV4}|{_IPV6}",
    "uri": _URI,
} | {
    f"uuid{version}": (
        rf"{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
    )
    for version in (1, 3, 4, 5, 6, 7, 8)
}


@lru_cache(len(FORMATS))
def format_automaton(format: str) -> Automaton:
    """The automaton of a format's strings; `format` is one of `FORMATS`."""
    return Patterns().automaton(f"^({FORMATS[format]})$")
