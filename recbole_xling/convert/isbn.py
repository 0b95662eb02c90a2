"""International Standard Book Numbers, and the language of the country or area that a number was given out in.

A number begins with its registration group (International ISBN Agency: Range Message). The table has the groups whose
books are nearly all in one language. Groups of several languages, such as India (81, 93),
former Czechoslovakia (80) and Yugoslavia (86), Israel (965) and Hong Kong (962, 988), are not in it.
"""

from __future__ import annotations

import re

from recbole_xling.text.record import UNDETERMINED

_ISBN = re.compile(r"(?:97[89][0-9]|[0-9])[0-9]{8}[0-9X]")
_GROUPS = {
    "ar": "603 9933 9960",
    "bg": "619 954",
    "da": "87",
    "de": "3",
    "el": "618 960",
    "en": "0 1",
    "es": "84 607 612 628 631 950 956 958 959 968 970 980 987 9930 9942 9945 9968 9972 9974 9977 9978 99905 99922 "
    "99923 99924 99925 99926",
    "et": "9916 9949 9985",
    "fa": "600 622 964",
    "fi": "951 952",
    "fr": "2",
    "hr": "953",
    "hu": "615 963",
    "id": "602 623 979",
    "is": "9935 9979",
    "it": "88",
    "ja": "4",
    "ko": "89 9946",
    "lt": "609 9955 9986",
    "lv": "9934 9984",
    "nl": "90 94",
    "no": "82",
    "pl": "83",
    "pt": "65 85 972 989",
    "ro": "606 630 973",
    "ru": "5",
    "sl": "961",
    "sv": "91",
    "th": "611 616 974",
    "tr": "605 625 975",
    "vi": "604",
    "zh": "7",
    "zh-Hant": "626 957 986",
}
_GROUPS_979 = {"en": "8", "es": "13", "fr": "10", "it": "12", "ko": "11"}
_LANGUAGE = {f"978{group}": language for language, groups in _GROUPS.items() for group in groups.split()}
_LANGUAGE |= {f"979{group}": language for language, groups in _GROUPS_979.items() for group in groups.split()}
_LONGEST = max(map(len, _LANGUAGE))


def isbn_language(isbn: str) -> str:
    """Return the language of the group of a number, ``und`` where it is of several or what is given is no ISBN.

    Args:
        isbn: 10 or 13 characters without hyphens; its check digit is not looked at.
    """
    if _ISBN.fullmatch(isbn):
        number = isbn if len(isbn) == 13 else f"978{isbn}"
        for end in range(4, _LONGEST + 1):  # no group begins with another one
            if number[:end] in _LANGUAGE:
                return _LANGUAGE[number[:end]]
    return UNDETERMINED
