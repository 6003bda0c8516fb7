"""Korean sentences with labelled personal numbers, and sentences with numbers that only look like them.

Written from how people write these numbers (number plans, banks' own formats, ISO/IEC 7812, ISO 2108), and
from nothing of the masker: it imports none of its patterns, words or names.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """A text and what is personal in it."""

    form: str
    """How the number is written, or what the text holds in its place."""
    text: str
    labels: tuple[tuple[str, int, int], ...]
    """Kind, start and end of each; none in a negative case."""


Make = Callable[[random.Random], str]

SURNAMES = "김이박최정강조윤장임한오서신권황안송류홍"
GIVEN = (
    *("민준", "서연", "도윤", "하은", "지호", "수아", "예준", "지우"),
    *("현우", "채원", "영희", "철수", "은정", "성호", "미경", "길동"),
)


def make_cases(seed: int, num_positive: int, num_negative: int) -> list[Case]:
    """Cases in equal parts of each kind and of each form, positive ones first; the same for the same seed."""
    chance = random.Random(seed)
    positives = [
        _positive(chance, *POSITIVES[number % len(POSITIVES)])
        for number in range(num_positive - num_positive // 10)
    ]
    several = [_several(chance) for _ in range(num_positive // 10)]
    negatives = [_negative(chance, *NEGATIVES[number % len(NEGATIVES)]) for number in range(num_negative)]
    return [*positives, *several, *negatives]


def _positive(chance: random.Random, kind: str, form: str, make: Make, contexts: Sequence[str]) -> Case:
    before, after = chance.choice(contexts).replace("NAME", _name(chance)).split("{}")
    opening = chance.choice(OPENINGS)
    value = make(chance)
    start = len(opening) + len(before)
    text = opening + before + value + after + chance.choice(ENDINGS)
    return Case(f"{kind}: {form}", text, ((kind, start, start + len(value)),))


def _several(chance: random.Random) -> Case:
    """What a form or a classified advertisement says of one person."""
    text, labels = f"성명: {_name(chance)}", []
    for _ in range(chance.randint(2, 3)):
        kind, _, make, contexts = chance.choice(POSITIVES)
        before, after = chance.choice(contexts).replace("NAME", _name(chance)).split("{}")
        text += chance.choice((" / ", "\n", ", ", "\n- ")) + before
        value = make(chance)
        labels.append((kind, len(text), len(text) + len(value)))
        text += value + after
    return Case("several", text, tuple(labels))


def _negative(chance: random.Random, form: str, make: Make) -> Case:
    return Case(f"none: {form}", chance.choice(OPENINGS) + make(chance) + chance.choice(ENDINGS), ())


OPENINGS = (
    "",
    "",
    "안녕하세요. ",
    "1. ",
    "- ",
    "2023년 5월에 쓴 글입니다. ",
    "회의는 14:30에 시작합니다.\n",
    "총 3명이 참석했고, ",
    "[공지] ",
)
ENDINGS = ("", "", " 감사합니다.", "\n이상입니다.", " (끝)", " 2024.01.05", " 자세한 내용은 3쪽을 보세요.")


def _name(chance: random.Random) -> str:
    return chance.choice(SURNAMES) + chance.choice(GIVEN)


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choice("0123456789") for _ in range(count))


def _starting(chance: random.Random, first: str, count: int) -> str:
    """`count` digits, the first of them one of `first`."""
    return chance.choice(first) + _digits(chance, count - 1)


def _wide(text: str) -> str:
    """As an input method in full width writes it."""
    return "".join(chr(ord(mark) + 0xFEE0) if mark in "0123456789-" else mark for mark in text)


# Resident registration numbers: birth date, a digit for sex and century (5 to 8: foreigners), six more.


def _rrn_parts(chance: random.Random) -> tuple[str, str]:
    year = chance.randint(1930, 2023)
    month = chance.randint(1, 12)
    day = chance.randint(1, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1])
    sex = chance.choice("12" if year < 2000 else "34") if chance.random() < 0.9 else None
    sex = sex or chance.choice("56" if year < 2000 else "78")
    birth, rest = f"{year % 100:02d}{month:02d}{day:02d}", sex + _digits(chance, 5)
    if chance.random() < 0.6:  # issued before October 2020: the last digit is a check digit
        weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
        total = sum(weight * int(digit) for weight, digit in zip(weights, birth + rest, strict=True))
        return birth, rest + str((11 - total % 11) % 10)
    return birth, rest + _digits(chance, 1)


RRN_CONTEXTS = (
    "주민등록번호 {}",
    "주민번호는 {}입니다",
    "주민등록번호: {}",
    "NAME({})",
    "NAME {} 서울 출생",
    "본인 확인을 위해 {}를 입력했습니다",
    "외국인등록번호 : {}",
    "피고인 NAME, {}, 무직",
    "신청인의 주민 번호({})를 확인함",
    "생년월일 및 번호 {} 기재",
    "제 번호 {} 맞는지 봐주세요",
)
RRN_CUED = tuple(context for context in RRN_CONTEXTS if "주민" in context or "외국인" in context)

# Phone numbers: mobile, area codes, internet, virtual, toll-free; at home and with the country code.

AREAS = ("02", "031", "032", "033", "041", "042", "043", "044", "051", "052", "053", "054", "055", "061", "062")


def _mobile(separator: str) -> Make:
    def make(chance: random.Random) -> str:
        if chance.random() < 0.85:
            return separator.join(("010", _starting(chance, "23456789", 4), _digits(chance, 4)))
        prefix = chance.choice(("011", "016", "017", "018", "019"))
        return separator.join(
            (prefix, _starting(chance, "23456789", chance.choice((3, 4))), _digits(chance, 4))
        )

    return make


def _landline(pattern: str) -> Make:
    def make(chance: random.Random) -> str:
        exchange = _starting(chance, "23456789", chance.choice((3, 4)))
        return pattern.format(chance.choice(AREAS), exchange, _digits(chance, 4))

    return make


def _abroad(pattern: str) -> Make:
    def make(chance: random.Random) -> str:
        return pattern.format(_starting(chance, "23456789", 4), _digits(chance, 4))

    return make


def _service(chance: random.Random) -> str:
    prefix = chance.choice(("070", "0502", "0504", "0505", "0507"))
    return f"{prefix}-{_starting(chance, '23456789', 4)}-{_digits(chance, 4)}"


def _toll_free(chance: random.Random) -> str:
    return f"080-{_starting(chance, '23456789', 3)}-{_digits(chance, 4)}"


PHONE_CONTEXTS = (
    "연락처: {}",
    "전화번호는 {}입니다",
    "{}로 전화 주세요",
    "문의 {}",
    "☎ {}",
    "NAME({})",
    "제 번호 {}예요",
    "휴대폰 {} 으로 문자 보내세요",
    "Tel. {}",
    "담당자 NAME 대리 ({}) 에게 연락 바랍니다",
    "{}번으로 입금자명 문자 주세요",
    "상담은 {} (평일 09:00~18:00)",
    "팩스 {}, 우편 접수 가능",
    "NAME님 {}",
    "카톡이나 {} 둘 다 됩니다",
)

# Bank accounts, as the banks print them.

BANK_FORMS = (
    (6, 2, 6),  # KB, Post
    (3, 2, 4, 3),  # KB of old
    (3, 3, 6),  # Shinhan, K bank, credit unions
    (3, 2, 6),  # Shinhan and Nonghyup of old, SC, Suhyup
    (4, 3, 6),  # Woori
    (3, 6, 5),  # Hana
    (3, 4, 4, 2),  # Nonghyup, Busan
    (3, 6, 2, 3),  # IBK
    (4, 2, 7),  # KakaoBank
    (4, 4, 4),  # Toss
    (3, 6, 3),  # Citi
    (3, 2, 6, 1),  # Daegu
    (4, 4, 4, 1),  # MG
)


def _account(chance: random.Random, joint: str, forms: Sequence[tuple[int, ...]]) -> str:
    """The first group of an account is a branch or a product, never a year of ours."""
    first, *others = chance.choice(forms)
    head = (
        chance.choice(("1002", "3333", "1000", "9002")) if first == 4 else _starting(chance, "1234567", first)
    )
    return joint.join((head, *(_digits(chance, length) for length in others)))


ACCOUNT_CONTEXTS = (
    "계좌번호 {}",
    "계좌번호는 {}입니다",
    "입금 계좌: {} 예금주 NAME",
    "후원계좌 {} (NAME)",
    "무통장 입금은 {} 로 부탁드립니다",
    "국민은행 {} NAME",
    "우리은행 {} 예금주: NAME",
    "카카오뱅크 {} NAME",
    "농협 {} 으로 보내 주세요",
    "{} 신한은행 NAME",
    "{} (예금주 NAME) 으로 송금했습니다",
    "회비는 새마을금고 {} 로 이체해 주세요",
    "통장 번호가 {}였는데",
)


def _printed(joint: str) -> Make:
    return lambda chance: _account(chance, joint, BANK_FORMS)


def _uncued_account(chance: random.Random) -> str:
    """Of a form that little else has."""
    forms = ((6, 2, 6), (3, 3, 6), (4, 3, 6), (3, 6, 5), (3, 4, 4, 2), (3, 6, 2, 3), (4, 2, 7))
    return _account(chance, "-", forms)


UNCUED_CONTEXTS = ("{} NAME", "아래로 보내 주세요. {}", "{}입니다", "NAME {}", "여기로 부탁드려요 {}")

# Cards: issuer's digits and a check digit.


def _card_number(chance: random.Random, prefixes: Sequence[str], length: int) -> str:
    body = chance.choice(prefixes)
    body += _digits(chance, length - 1 - len(body))
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return body + str(-total % 10)


PREFIXES = ("4", "51", "52", "53", "54", "55", "3528", "6210", "9410", "9430", "2230")


def _card(separator: str) -> Make:
    def make(chance: random.Random) -> str:
        number = _card_number(chance, PREFIXES, 16)
        return separator.join(number[start : start + 4] for start in range(0, 16, 4))

    return make


def _amex(separator: str) -> Make:
    def make(chance: random.Random) -> str:
        number = _card_number(chance, ("34", "37"), 15)
        return separator.join((number[:4], number[4:10], number[10:]))

    return make


def _diners(separator: str) -> Make:
    def make(chance: random.Random) -> str:
        number = _card_number(chance, ("36", "38"), 14)
        return separator.join((number[:4], number[4:10], number[10:]))

    return make


CARD_CONTEXTS = (
    "카드번호 {}",
    "신용카드 {} 유효기간 05/27",
    "결제 카드: {}",
    "체크카드 번호는 {}입니다",
    "{} 카드로 결제했어요",
    "분실 신고합니다. {}",
    "{} (NAME)",
    "삼성카드 {} 일시불",
    "등록된 번호 {}를 삭제해 주세요",
)

# Mail addresses.


LOCALS = (
    "minjun",
    "seoyeon",
    "hgd",
    "kim.cs",
    "lee_yh",
    "park-js",
    "happy",
    "dragon",
    "kko99",
    "ceo.hong",
    "star",
)
DOMAINS = (
    *("naver.com", "gmail.com", "daum.net", "hanmail.net", "kakao.com", "nate.com", "korea.ac.kr"),
    *("company.co.kr", "mail.example.org", "snu.ac.kr", "my-shop.kr", "yna.co.kr", "mois.go.kr", "startup.io"),
)


def _email(chance: random.Random) -> str:
    ending = chance.choice(("", _digits(chance, 2), _digits(chance, 4), "+news", ".kr"))
    return f"{chance.choice(LOCALS)}{ending}@{chance.choice(DOMAINS)}"


def _shouted_email(chance: random.Random) -> str:
    return _email(chance).upper()


def _spaced_email(chance: random.Random) -> str:
    return _email(chance).replace("@", " @ ")


EMAIL_CONTEXTS = (
    "이메일: {}",
    "{}으로 보내 주세요",
    "메일주소는 {}입니다",
    "NAME 기자 {}",
    "문의({})",
    "<{}>",
    "E-mail {} 로 접수",
    "제 메일은 {}, 참고하세요",
    '"{}"에서 답장이 왔다',
    "mailto:{}",
)

POSITIVES: tuple[tuple[str, str, Make, Sequence[str]], ...] = (
    ("rrn", "hyphen", lambda chance: "-".join(_rrn_parts(chance)), RRN_CONTEXTS),
    ("rrn", "hyphen, again", lambda chance: "-".join(_rrn_parts(chance)), RRN_CONTEXTS),
    ("rrn", "without", lambda chance: "".join(_rrn_parts(chance)), RRN_CONTEXTS),
    ("rrn", "spaced hyphen", lambda chance: " - ".join(_rrn_parts(chance)), RRN_CONTEXTS),
    ("rrn", "space", lambda chance: " ".join(_rrn_parts(chance)), RRN_CUED),
    ("rrn", "full width", lambda chance: _wide("-".join(_rrn_parts(chance))), RRN_CONTEXTS),
    ("phone", "mobile, hyphens", _mobile("-"), PHONE_CONTEXTS),
    ("phone", "mobile, bare", _mobile(""), PHONE_CONTEXTS),
    ("phone", "mobile, spaces", _mobile(" "), PHONE_CONTEXTS),
    ("phone", "mobile, two spaces", _mobile("  "), PHONE_CONTEXTS),
    ("phone", "mobile, dots", _mobile("."), PHONE_CONTEXTS),
    ("phone", "mobile, spaced hyphens", _mobile(" - "), PHONE_CONTEXTS),
    ("phone", "mobile, full width", lambda chance: _wide(_mobile("-")(chance)), PHONE_CONTEXTS),
    ("phone", "landline, hyphens", _landline("{}-{}-{}"), PHONE_CONTEXTS),
    ("phone", "landline, bracket", _landline("{}){}-{}"), PHONE_CONTEXTS),
    ("phone", "landline, brackets", _landline("({}) {}-{}"), PHONE_CONTEXTS),
    ("phone", "landline, dots", _landline("{}.{}.{}"), PHONE_CONTEXTS),
    ("phone", "landline, spaces", _landline("{} {} {}"), PHONE_CONTEXTS),
    ("phone", "landline, bare", _landline("{}{}{}"), PHONE_CONTEXTS),
    ("phone", "internet and virtual", _service, PHONE_CONTEXTS),
    ("phone", "toll-free", _toll_free, PHONE_CONTEXTS),
    ("phone", "+82-10", _abroad("+82-10-{}-{}"), PHONE_CONTEXTS),
    ("phone", "+82 10", _abroad("+82 10 {} {}"), PHONE_CONTEXTS),
    ("phone", "+8210", _abroad("+8210{}{}"), PHONE_CONTEXTS),
    ("phone", "+82 (0)10", _abroad("+82 (0)10-{}-{}"), PHONE_CONTEXTS),
    ("phone", "+82-2", _abroad("+82-2-{}-{}"), PHONE_CONTEXTS),
    ("phone", "0082", _abroad("0082-10-{}-{}"), PHONE_CONTEXTS),
    ("phone", "mobile, a vowel for a hyphen", _mobile("ㅡ"), PHONE_CONTEXTS),
    ("phone", "82-10", _abroad("82-10-{}-{}"), PHONE_CONTEXTS),
    ("account", "hyphens", _printed("-"), ACCOUNT_CONTEXTS),
    ("account", "hyphens, again", _printed("-"), ACCOUNT_CONTEXTS),
    ("account", "hyphens, once more", _printed("-"), ACCOUNT_CONTEXTS),
    ("account", "bare", _printed(""), ACCOUNT_CONTEXTS),
    ("account", "spaces", _printed(" "), ACCOUNT_CONTEXTS),
    ("account", "full width", lambda chance: _wide(_printed("-")(chance)), ACCOUNT_CONTEXTS),
    ("account", "without a word of it", _uncued_account, UNCUED_CONTEXTS),
    ("card", "hyphens", _card("-"), CARD_CONTEXTS),
    ("card", "hyphens, again", _card("-"), CARD_CONTEXTS),
    ("card", "spaces", _card(" "), CARD_CONTEXTS),
    ("card", "bare", _card(""), CARD_CONTEXTS),
    ("card", "dots", _card("."), CARD_CONTEXTS),
    ("card", "15 digits", _amex("-"), CARD_CONTEXTS),
    ("card", "15 digits, bare", _amex(""), CARD_CONTEXTS),
    ("card", "14 digits", _diners("-"), CARD_CONTEXTS),
    ("email", "plain", _email, EMAIL_CONTEXTS),
    ("email", "plain, again", _email, EMAIL_CONTEXTS),
    ("email", "plain, once more", _email, EMAIL_CONTEXTS),
    ("email", "capitals", _shouted_email, EMAIL_CONTEXTS),
    ("email", "spaces around @", _spaced_email, EMAIL_CONTEXTS),
    (
        "email",
        "for people",
        lambda chance: _email(chance).replace("@", chance.choice(("(at)", "[at]"))),
        EMAIL_CONTEXTS,
    ),
)


# What is nobody's number.


def _date(chance: random.Random, joint: str) -> str:
    year, month, day = chance.randint(1950, 2029), chance.randint(1, 12), chance.randint(1, 28)
    return joint.join((str(year), f"{month:02d}", f"{day:02d}"))


def _time(chance: random.Random) -> str:
    return f"{chance.randint(0, 23):02d}:{chance.randint(0, 59):02d}"


def _ean(chance: random.Random, prefix: str, joint: str = "") -> str:
    """A bar code, or with 978 and 979 an ISBN: 13 digits, the last one a check digit."""
    body = prefix + _digits(chance, 12 - len(prefix))
    check = -sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(body)) % 10
    number = f"{body}{check}"
    return joint.join((number[:3], number[3:5], number[5:9], number[9:12], number[12]))


def _no_card(chance: random.Random) -> str:
    """Sixteen digits whose check digit is wrong."""
    right = _card_number(chance, PREFIXES, 16)
    return right[:-1] + str((int(right[-1]) + chance.randint(1, 9)) % 10)


def _fours(number: str) -> str:
    return "-".join(number[start : start + 4] for start in range(0, len(number), 4))


def _no_birthday(chance: random.Random) -> str:
    return f"{chance.randint(10, 99)}{chance.randint(13, 99)}{_digits(chance, 2)}-{_digits(chance, 7)}"


def _hex(chance: random.Random, count: int) -> str:
    return "".join(chance.choice("0123456789abcdef") for _ in range(count))


def _say(*patterns: str, **makes: Make) -> Make:
    """A sentence out of `patterns`, filled by `makes`."""

    def make(chance: random.Random) -> str:
        return chance.choice(patterns).format(**{name: of(chance) for name, of in makes.items()})

    return make


def _run(count: int) -> Make:
    return lambda chance: _starting(chance, "123456789", count)


def _bits(count: int) -> Make:
    return lambda chance: "01" + "".join(chance.choice("01") for _ in range(count - 2))


def _of(pattern: str) -> Make:
    """`pattern` with a digit for each #."""
    return lambda chance: "".join(_digits(chance, 1) if mark == "#" else mark for mark in pattern)


def _dated(joint: str) -> Make:
    return lambda chance: _date(chance, joint)


NEGATIVES: tuple[tuple[str, Make], ...] = (
    ("date", _say("{a}에 개최", "작성일 {a}", "{a} 기준", "계좌 개설일 {a}", "연락한 날: {a}", a=_dated("-"))),
    ("date, dots", _say("{a}에 개최", "작성일 {a}.", "{a} 기준 은행 금리", a=_dated("."))),
    ("date, slashes", _say("{a} 마감", "입금일 {a}", a=_dated("/"))),
    ("date, spaced", _say("{a}. 제정", "시행 {a}.", a=_dated(". "))),
    ("date, bare", _say("{a}자 신문", "파일명 {a}.txt", "발급일자 {a}", a=_dated(""))),
    ("dates from to", _say("{a}~{b}", "{a} - {b}", "기간: {a}-{b}", a=_dated("."), b=_dated("."))),
    ("dates from to, hyphens", _say("{a} ~ {b}", "{a}~{b} 접수", a=_dated("-"), b=_dated("-"))),
    ("dates, listed", _say("{a}, {b}, {a}", "{a} {b} {a}", a=_dated("-"), b=_dated("-"))),
    ("date and time", _say("{a} {t}:05", "{a}T{t}:00+09:00", "[{a} {t}] 접속", a=_dated("-"), t=_time)),
    ("moment", _say("백업_{a}{t}30.zip", "거래일시 {a}{t}30", a=_dated(""), t=_of("1#2#"))),
    ("time", _say("{t}에 만나요", "영업시간 {t}-{u}", "은행은 {t}~{u}에 엽니다", t=_time, u=_time)),
    ("a thousand", _say("1000명", "정원은 1000", "전화 1000통", "1000-2000자", "1000 2000 3000 4000")),
    ("price", _say("{a},000원", "계좌로 {a},{a},000원 입금", "총액 {a},{a},{a}원", a=_run(3))),
    ("price, bare", _say("{a}원을 송금했다", "계좌에 {a}원이 들어왔다", "예산 {a}달러", a=_run(10))),
    (
        "law",
        _say("제{a}조제2항제{b}호", "법률 제{c}호", "제{a}조의2 및 제{b}조", a=_run(2), b=_run(1), c=_run(5)),
    ),
    (
        "law, numbered",
        _say("고용노동부고시 제{y}-{a}호", "공고 제{y}-{c}호", y=_of("20##"), a=_run(3), c=_run(4)),
    ),
    (
        "court case",
        _say("{y}가합{a} 판결", "{y}다{b}", "{y}헌바{c}", y=_of("20##"), a=_run(6), b=_run(7), c=_run(3)),
    ),
    (
        "version",
        _say(
            "버전 {a}.{b}.{a}",
            "v{a}.{c}.{b}-rc.1",
            "빌드 10.0.{d}.{c}",
            a=_run(1),
            b=_run(2),
            c=_run(3),
            d=_run(5),
        ),
    ),
    ("ISBN", _say("ISBN {a}", "도서 {a}", "ISBN: {a} 정가", a=lambda chance: _ean(chance, "978", "-"))),
    ("ISBN, bare", _say("ISBN {a}", "{a} (도서)", a=lambda chance: _ean(chance, "97911"))),
    ("ISBN of ten", _say("ISBN {a}", "국제표준도서번호 {a}", a=_of("89-####-###-#"))),
    ("bar code", _say("바코드 {a}", "상품 {a} 스캔", "EAN {a}", a=lambda chance: _ean(chance, "880"))),
    (
        "place",
        _say("위도 37.{a}, 경도 126.{b}", "(37.{a},127.{b})", "좌표 35.{a} 129.{b}", a=_run(6), b=_run(7)),
    ),
    ("fraction", _say("0.{a}", "3.{a}", "원주율 3.14159265358979{a}", "비율은 0.0{a}입니다", a=_run(11))),
    ("long number", _say("{a}개의 값", "총 {b}바이트", "해시 {a}", "정수 {b}", a=_run(17), b=_run(12))),
    ("longer number", _say("{a}", "정답은 {a}", a=_run(22))),
    ("parcel", _say("운송장 번호 {a}", "송장번호: {a}", "택배 운송장 {a} 배송중", a=_of("6###-####-####"))),
    ("parcel, bare", _say("운송장번호 {a}", "송장 {b}", "등기번호 {b}", a=_run(12), b=_run(13))),
    ("order", _say("주문번호 {a}", "주문번호: {a} 확인", a=_of("20230#1#-#######"))),
    ("order like a phone", _say("주문번호 2{a}", "주문 번호 2{a} 취소", a=_of("010-####-####"))),
    ("order like a mobile", _say("주문번호 {a}", "예약번호: {a}", "접수번호 {a}", a=_of("010########"))),
    ("order with letters", _say("ORD-{a}", "주문 A{a}", "코드 KR{a}", a=_of("2023-01##-####-####"))),
    ("order, bare", _say("주문번호 {a}", "결제 승인번호 {a}", "거래번호 {a}", a=_of("202301##########"))),
    (
        "business number",
        _say("사업자등록번호 {a}", "사업자번호: {a}", "등록번호 {a} 대표 김철수", a=_of("1##-8#-#####")),
    ),
    ("company number", _say("법인등록번호 {a}", "법인번호: {a}", a=_of("110111-0######"))),
    ("network", _say("192.168.{a}.{b}", "서버 10.{a}.{b}.1:8080", "211.{a}.{b}.77 차단", a=_run(2), b=_run(2))),
    ("hardware address", _say("00:1A:2B:{a}:4D:5E", "MAC 00-1A-2B-{a}-4D-5E", a=_of("##"))),
    (
        "UUID",
        _say(
            "{a}-{b}-4{c}-9{c}-{d}",
            a=lambda c: _hex(c, 8),
            b=lambda c: _hex(c, 4),
            c=lambda c: _hex(c, 3),
            d=lambda c: _hex(c, 12),
        ),
    ),
    (
        "hash",
        _say("커밋 {a}", "sha1 {b}", a=lambda chance: _hex(chance, 12), b=lambda chance: _hex(chance, 40)),
    ),
    (
        "years",
        _say("{a}-{b}년", "{a}~{b} 재임", "({a}-{b})", "임진왜란(1592-1598)", a=_of("19##"), b=_of("20##")),
    ),
    ("postcode", _say("우편번호 {a}", "({a}) 서울시", "우편번호 {b}", a=_run(5), b=_of("1##-###"))),
    ("student", _say("학번 {a}", "사번: {a}", "수험번호 {a}", a=_of("20########"))),
    ("patent", _say("특허 제10-{a}호", "출원번호 10-2021-{a}", "등록특허 10-{a}", a=_run(7))),
    ("sum", _say("{a} + {b} = {c}", "{a}-{b}={c}", "{a} × {b}", a=_run(4), b=_run(4), c=_run(4))),
    ("columns", _say("{a} {b} {a} {b} {a}", "{a}\t{b}\t{a}\t{b}", "| {a} | {b} | {a} |", a=_run(2), b=_run(3))),
    (
        "columns of four",
        _say("{a} {b} {c}", "{a} {b} {c} {a} {b}", a=_of("1###"), b=_of("2###"), c=_of("3###")),
    ),
    (
        "list",
        _say("당첨 번호는 3, 12, {a}, {b}, 41, 44", "{a}, {b}, {c}, {a}", a=_run(2), b=_run(2), c=_run(3)),
    ),
    ("part", _say("부품 SM-{a}N", "모델명 AB-{b}-{c}", "시리얼 S/N {c}{c}", a=_run(3), b=_run(4), c=_run(6))),
    ("share", _say("주식 005930", "종목코드 {a}, 12.5% 상승", "코스피 2,{b}.12", a=_of("0#####"), b=_run(3))),
    ("plate", _say("차량 12가 {a}", "{b}호 {a}", "서울 31바 {a}", a=_run(4), b=_run(3))),
    ("service line", _say("고객센터 1588-{a}", "국번없이 119", "1{b}-{a} 상담", a=_run(4), b=_of("544"))),
    (
        "paper",
        _say("doi:10.1145/{a}.{b}", "arXiv:2402.{c}", "doi 10.1000/xyz{a}", a=_run(7), b=_run(7), c=_run(5)),
    ),
    (
        "address on the web",
        _say("https://blog.naver.com/user/{a}", "http://a.kr/?id=010{b}&n={a}", a=_run(12), b=_run(8)),
    ),
    ("sixteen digits", _say("일련번호 {a}", "{a}", "쿠폰 {a}", a=lambda c: _fours(_starting(c, "178", 16)))),
    ("wrong check digit", _say("{a}", "키 {a}", a=_no_card)),
    ("no birthday", _say("관리번호 {a}", "{a}", "코드 {a}", a=_no_birthday)),
    ("milliseconds", _say("타임스탬프 {a}", "timestamp={a}", '"ts": {a}', a=_of("16########123"))),
    ("score", _say("한국 3-2 승리", "스코어 {a}-{b}-{a}", "{a}:{b}", a=_run(1), b=_run(2))),
    ("mention", _say("@minjun{a} 님", "@kim.cs 고마워요", "트위터 @news_{a}", a=_run(4))),
    ("package", _say("npm i react@{a}.2.0", "vue@3.{a}.1 설치", "lodash@^4.{a}.0", a=_run(2))),
    ("file", _say("icon@2x.png", "logo@{a}x.jpg 파일", "배너@3x.webp", a=_run(1))),
    ("bits", _say("이진수 {a}", "0_{a}_1001", "{b}", a=_bits(11), b=_bits(13))),
    (
        "host",
        _say(
            "ssh root@localhost",
            "git clone git@github.com:user{a}/blog.git",
            "docker@host-{a}",
            "user@10.0.0.{a}",
            a=_run(2),
        ),
    ),
    (
        "code",
        _say(
            "@Override public int f()",
            "@app.route('/')",
            '<div @click.stop="열기">',
            "a @ b.T",
            "개당 5 @ {a}원",
            a=_run(4),
        ),
    ),
)
