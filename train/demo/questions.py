"""The kinds of question the demo is taught and examined in, and what of each is held out.

A question is held out or taught by the hash of its key, never by chance:

- Kinds that follow a rule (addition, subtraction, parity, dates, numerals, what to remember): the key is the
  operands, the date, the number or the name. A held-out one occurs in no training text in any wording.
- Kinds that are facts (capitals, months, weekdays, particles, opposites, counters, the multiplication table,
  greetings): a fact that was never taught cannot be known, so the key is the text of the question. The
  fact was taught in other wordings; this wording of it is unseen.

Each wording of a question has one right answer, so an examination is a comparison of strings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from malmoi.chat import Message
from train.demo import facts
from train.demo.sentences import draw_name
from train.demo.split import is_held_out
from train.korean import Word, final_consonant, native_numeral, particle, sino_numeral

Wordings = tuple[tuple[str, str], ...]
"""Questions, each with its answer, both as templates of the same values."""


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation whose last message is a question, and the one right answer."""

    kind: str
    key: str
    """What decides on which side of the split the question lies."""
    messages: tuple[Message, ...]
    answer: str

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The question with its answer, as the model is taught it."""
        return (*self.messages, Message("assistant", self.answer))

    @property
    def is_held_out(self) -> bool:
        """Whether the question belongs to the examination."""
        return is_held_out("noun" if self.kind in NOUN_KINDS else self.kind, self.key)


Draw = Callable[[Random], Question]

ADDITION: Final = (
    "{a} 더하기 {b:은/는} 얼마인가요?",
    "{a:과/와} {b:을/를} 더하면 얼마인가요?",
    "{a}에 {b:을/를} 더하면 몇이 되나요?",
    "{a:과/와} {b}의 합을 구하세요.",
    "사과가 {a}개 있는데 {b}개를 더 샀습니다. 모두 몇 개인가요?",
    "{a} + {b} = ?",
)
ADDITION_ANSWER: Final = (
    "일의 자리는 {a_ones} + {b_ones} = {ones}, "
    "십의 자리는 {a_tens} + {b_tens} + {carry} = {tens}, 답은 {c}입니다."
)
"""With its working, digit by digit: each step is then a small fact, and only their order is a rule."""
SUBTRACTION: Final = (
    "{a} 빼기 {b:은/는} 얼마인가요?",
    "{a}에서 {b:을/를} 빼면 얼마인가요?",
    "{a}에서 {b:을/를} 빼면 몇이 남나요?",
    "{a:과/와} {b}의 차를 구하세요.",
    "사탕 {a}개 가운데 {b}개를 먹었습니다. 몇 개가 남았나요?",
    "{a} - {b} = ?",
)
SUBTRACTION_ANSWER: Final = (
    "일의 자리는 {a_ones} - {b_ones} = {ones}, "
    "십의 자리는 {a_tens} - {b_tens} - {borrow} = {tens}, 답은 {c}입니다."
)
MULTIPLICATION: Final[Wordings] = (
    ("{a} 곱하기 {b:은/는} 얼마인가요?", "{a} 곱하기 {b:은/는} {c}입니다."),
    ("{a:과/와} {b:을/를} 곱하면 얼마인가요?", "{a:과/와} {b:을/를} 곱하면 {c}입니다."),
    ("구구단에서 {a} 곱하기 {b:은/는} 몇인가요?", "구구단에서 {a} 곱하기 {b:은/는} {c}입니다."),
    ("{a:과/와} {b}의 곱을 구하세요.", "{a:과/와} {b}의 곱은 {c}입니다."),
    ("{a}개씩 {b}묶음이면 모두 몇 개인가요?", "{a}개씩 {b}묶음이면 모두 {c}개입니다."),
    ("{a} × {b} = ?", "{a} × {b} = {c}"),
)
PARITY: Final[Wordings] = (
    ("{n:은/는} 짝수인가요, 홀수인가요?", "{n:은/는} {parity}입니다."),
    ("{n:이/가} 짝수인지 홀수인지 말해 주세요.", "{n:은/는} {parity}입니다."),
    ("{n:을/를} 2로 나누면 나머지는 얼마인가요?", "{n:을/를} 2로 나누면 나머지는 {remainder}입니다."),
    ("{n:은/는} 2로 나누어떨어지나요?", "{divides}"),
)
NUMERAL: Final[Wordings] = (
    ("{n:을/를} 한글로 어떻게 읽나요?", "{n:은/는} {sino:'이라고/라고} 읽습니다."),
    ("{n:을/를} 한글로 써 주세요.", "{sino}"),
    ("숫자 {n:은/는} 우리말로 어떻게 읽습니까?", "{sino:이라고/라고} 읽습니다."),
    ("{sino:'을/를} 숫자로 쓰면 무엇인가요?", "{sino:'을/를} 숫자로 쓰면 {n}입니다."),
    ("{sino:을/를} 아라비아 숫자로 써 주세요.", "{n}"),
)
COUNTING: Final[Wordings] = (
    ("{n:을/를} 순우리말로 세면 무엇인가요?", "{n:을/를} 순우리말로 세면 {native}입니다."),
    ("순우리말 수사로 {n:은/는} 무엇이라고 하나요?", "{native:이라고/라고} 합니다."),
    ("{native:은/는} 숫자로 얼마인가요?", "{native:은/는} {n}입니다."),
)
MONTH: Final[Wordings] = (
    ("{month}월은 며칠까지 있나요?", "평년의 {month}월은 {days}일까지 있습니다."),
    ("평년의 {month}월에는 날이 며칠 있나요?", "평년의 {month}월은 {days}일까지 있습니다."),
    ("{month}월의 마지막 날은 며칠인가요?", "평년의 {month}월은 {days}일까지 있습니다."),
    ("평년 {month}월은 모두 며칠인가요?", "평년의 {month}월은 {days}일까지 있습니다."),
    ("{month}월 다음 달은 몇 월인가요?", "{month}월 다음 달은 {next}월입니다."),
    ("{month}월이 지나면 몇 월이 오나요?", "{month}월 다음 달은 {next}월입니다."),
    ("이번 달이 {month}월이면 다음 달은 몇 월인가요?", "{month}월 다음 달은 {next}월입니다."),
    ("{month}월의 바로 앞 달은 몇 월인가요?", "{month}월의 앞 달은 {previous}월입니다."),
    ("이번 달이 {month}월이면 지난달은 몇 월이었나요?", "{month}월의 앞 달은 {previous}월입니다."),
    ("{month}월보다 한 달 앞선 달은 무엇인가요?", "{month}월의 앞 달은 {previous}월입니다."),
    ("한국에서 {month}월은 봄, 여름, 가을, 겨울 가운데 언제인가요?", "{month}월은 {season}입니다."),
    ("{month}월의 계절을 알려 주세요.", "{month}월은 {season}입니다."),
    ("{month}월이 되면 무슨 계절인가요?", "{month}월은 {season}입니다."),
    ("{month}월은 어느 계절인가요?", "{month}월은 {season}입니다."),
)
DAYS_AFTER: Final = "{today}에서 {n}일 뒤는 {day}입니다."
DAYS_BEFORE: Final = "{today}에서 {n}일 전은 {day}입니다."
WEEKDAY_AFTER: Final[Wordings] = (
    ("오늘이 {today}이면 {n}일 뒤는 무슨 요일인가요?", DAYS_AFTER),
    ("{today}에서 {n}일이 지나면 무슨 요일인가요?", DAYS_AFTER),
    ("{today}의 {n}일 뒤는 무슨 요일인가요?", DAYS_AFTER),
)
WEEKDAY_BEFORE: Final[Wordings] = (
    ("오늘이 {today}이면 {n}일 전은 무슨 요일이었나요?", DAYS_BEFORE),
    ("{today}의 {n}일 전은 무슨 요일인가요?", DAYS_BEFORE),
    ("{today}보다 {n}일 앞선 날은 무슨 요일인가요?", DAYS_BEFORE),
)
WEEKDAY_NEAR: Final[Mapping[int, Wordings]] = {
    1: (
        ("오늘이 {today}이면 내일은 무슨 요일인가요?", DAYS_AFTER),
        ("{today} 다음 날은 무슨 요일인가요?", DAYS_AFTER),
    ),
    2: (("오늘이 {today}이면 모레는 무슨 요일인가요?", DAYS_AFTER),),
    -1: (
        ("오늘이 {today}이면 어제는 무슨 요일이었나요?", DAYS_BEFORE),
        ("{today} 전날은 무슨 요일인가요?", DAYS_BEFORE),
    ),
    -2: (("오늘이 {today}이면 그저께는 무슨 요일이었나요?", DAYS_BEFORE),),
}
DATE: Final[Wordings] = (
    (
        "{month}월 {day}일 다음 날은 며칠인가요?",
        "{month}월 {day}일 다음 날은 {next_month}월 {next_day}일입니다.",
    ),
    ("오늘이 {month}월 {day}일이면 내일은 며칠인가요?", "내일은 {next_month}월 {next_day}일입니다."),
    (
        "{month}월 {day}일에서 하루가 지나면 몇 월 며칠인가요?",
        "하루가 지나면 {next_month}월 {next_day}일입니다.",
    ),
    ("어제가 {month}월 {day}일이었으면 오늘은 며칠인가요?", "오늘은 {next_month}월 {next_day}일입니다."),
)
CAPITAL: Final[Wordings] = tuple(
    (question, "{country}의 수도는 {capital}입니다.")
    for question in (
        "{country}의 수도는 어디인가요?",
        "{country:은/는} 수도가 어디입니까?",
        "{country}의 수도를 알려 주세요.",
        "{country} 수도의 이름은 무엇인가요?",
    )
)
COUNTRY: Final[Wordings] = tuple(
    (question, "{capital:은/는} {country}의 수도입니다.")
    for question in (
        "{capital:은/는} 어느 나라의 수도인가요?",
        "{capital:을/를} 수도로 둔 나라는 어디인가요?",
        "어느 나라의 수도가 {capital}입니까?",
    )
)
OPPOSITE: Final[Wordings] = tuple(
    (question, "{word:'}의 반대말은 {other:'}입니다.")
    for question in (
        "{word:'}의 반대말은 무엇인가요?",
        "{word:'}의 반대말을 알려 주세요.",
        "{word:'과/와} 뜻이 반대인 말은 무엇입니까?",
        "어떤 말이 {word:'}의 반대말인가요?",
        "{word:'}의 반대는 무엇입니까?",
    )
)
COUNTER: Final[Wordings] = tuple(
    (question, "{noun:'을/를} 세는 단위는 {unit:'}입니다.")
    for question in (
        "{noun:'을/를} 세는 단위는 무엇인가요?",
        "{noun:을/를} 셀 때는 어떤 단위를 쓰나요?",
        "{noun:은/는} 어떻게 세나요?",
        "{noun} 하나를 세는 말은 무엇입니까?",
        "{noun:이/가} 둘 있으면 어떤 단위를 붙이나요?",
    )
)
PARTICLE: Final[Wordings] = (
    (
        "{noun:'} 뒤에는 {first:'과/와} {second:'} 가운데 무엇을 쓰나요?",
        "{noun:'} 뒤에는 {right:'을/를} 씁니다.",
    ),
    (
        "{noun:'} 다음에 오는 조사는 {first:'이나/나} {second:'} 중에서 무엇입니까?",
        "{right:'}입니다. {joined:'이라고/라고} 씁니다.",
    ),
    ("{noun:'}에 {first:'이나/나} {second:'을/를} 붙여 보세요.", "{joined}"),
    ("빈칸에 {first:'이나/나} {second:'을/를} 쓰세요: {noun}( )", "{joined}"),
    ("{noun:'}의 마지막 글자에 받침이 있나요?", "{final}"),
)
INTRODUCTION: Final[Wordings] = (
    ("안녕하세요, 저는 {name}입니다.", "안녕하세요, {name} 님. 만나서 반갑습니다."),
    ("제 이름은 {name}입니다.", "반갑습니다, {name} 님."),
    ("저를 {name:이라고/라고} 불러 주세요.", "네, {name} 님이라고 부르겠습니다."),
    ("처음 뵙겠습니다. {name:이라고/라고} 합니다.", "처음 뵙겠습니다, {name} 님."),
    ("저는 {name:이에요/예요}. 반가워요.", "저도 반갑습니다, {name} 님."),
)
NAME_MEMORY: Final[Wordings] = (
    ("제 이름이 무엇이라고 했지요?", "{name} 님이라고 하셨습니다."),
    ("제 이름을 기억하나요?", "네, {name} 님입니다."),
    ("제가 누구인지 말해 보세요.", "{name} 님이십니다."),
    ("제 이름을 다시 말해 주세요.", "성함은 {name}입니다."),
)
NUMBER_GIVEN: Final[Wordings] = (
    ("제가 좋아하는 수는 {n}입니다.", "네, {n:을/를} 기억하겠습니다."),
    ("{n:이라는/라는} 수를 기억해 주세요.", "네, {n:을/를} 기억하겠습니다."),
    ("오늘의 번호는 {n}입니다. 외워 두세요.", "{n:을/를} 외워 두겠습니다."),
)
NUMBER_MEMORY: Final[Wordings] = (
    ("아까 말한 수가 무엇이었지요?", "아까 말씀하신 수는 {n}입니다."),
    ("그 수를 다시 말해 주세요.", "{n}입니다."),
    ("제가 어떤 수를 말했나요?", "{n:을/를} 말씀하셨습니다."),
    ("기억하고 있는 수를 알려 주세요.", "기억하고 있는 수는 {n}입니다."),
)
ADDRESSES: Final = ("", "말모이 님, ", "비서님, ", "저기요, ", "있잖아요, ")
GREETINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "안녕하세요! 무엇을 도와드릴까요?": ("안녕하세요?", "안녕하십니까?", "안녕!", "반갑습니다."),
    "좋은 아침입니다. 오늘도 좋은 하루 보내세요.": ("좋은 아침입니다.", "안녕히 주무셨어요?", "잘 잤어요?"),
    "천만에요. 언제든지 또 물어보세요.": (
        "고맙습니다.",
        "감사합니다.",
        "도와주셔서 고맙습니다.",
        "정말 고마워요.",
    ),
    "괜찮습니다. 걱정하지 마세요.": ("미안합니다.", "죄송합니다.", "제가 잘못했습니다.", "정말 미안해요."),
    "안녕히 가세요. 다음에 또 만나요.": ("안녕히 계세요.", "다음에 또 봐요.", "이만 가 볼게요.", "잘 있어요."),
    "안녕히 주무세요. 좋은 꿈 꾸세요.": (
        "안녕히 주무세요.",
        "이제 자러 갈게요.",
        "잘 자요.",
        "이제 잘 시간이에요.",
    ),
    "맛있게 드세요.": ("밥 먹고 올게요.", "이제 점심을 먹으려고 해요.", "저녁을 먹으러 가요."),
    "축하합니다! 정말 잘됐네요.": (
        "시험에 합격했어요.",
        "상을 받았어요.",
        "취직을 했어요.",
        "대회에서 이겼어요.",
    ),
    "새해 복 많이 받으세요. 늘 건강하시기 바랍니다.": ("새해 복 많이 받으세요.", "새해가 밝았네요."),
    "푹 쉬고 얼른 나으시기 바랍니다.": ("몸이 아파요.", "감기에 걸렸어요.", "머리가 아파요.", "열이 나요."),
    "고생하셨습니다. 오늘은 푹 쉬세요.": (
        "오늘 너무 피곤해요.",
        "일이 많아서 힘들었어요.",
        "이제야 일을 마쳤어요.",
    ),
    "저는 말모이로 만든 작은 언어 모델입니다.": ("당신은 누구인가요?", "누구세요?", "자기소개를 해 주세요."),
    "네, 한국어로 이야기할 수 있습니다.": (
        "한국어를 할 수 있나요?",
        "우리말을 아세요?",
        "한국어로 말할 수 있어요?",
    ),
    "말모이는 우리말로 된 첫 사전의 이름입니다.": ("말모이가 무엇인가요?", "말모이는 무슨 뜻이에요?"),
}


def _asked(random: Random, kind: str, wordings: Wordings, key: str | None = None, **values: object) -> Question:
    """A question in one of `wordings`; the text of the question is the key where none is given."""
    question, answer = (template.format(**values) for template in random.choice(wordings))
    return Question(kind, key or question, (Message("user", question),), answer)


def _number(number: int) -> Word:
    return Word(str(number))


def _two_numbers(random: Random) -> tuple[int, int]:
    """Two below 100, of which at least one has two digits."""
    while True:
        a, b = random.randrange(100), random.randrange(100)
        if max(a, b) > 9:
            return a, b


def draw_addition(random: Random) -> Question:
    """a + b, both below 100; the key is the pair, whatever its order.

    Not both below 10: the working of greater ones states those.
    """
    a, b = _two_numbers(random)
    carry = (a % 10 + b % 10) // 10
    answer = ADDITION_ANSWER.format(
        a_ones=a % 10,
        b_ones=b % 10,
        ones=a % 10 + b % 10,
        a_tens=a // 10,
        b_tens=b // 10,
        carry=carry,
        tens=a // 10 + b // 10 + carry,
        c=a + b,
    )
    wordings = tuple((wording, answer) for wording in ADDITION)
    return _asked(random, "addition", wordings, f"{min(a, b)} {max(a, b)}", a=_number(a), b=_number(b))


def draw_subtraction(random: Random) -> Question:
    """a - b, a the greater, from 20 to 99; the key is the pair. The working states smaller ones."""
    b, a = sorted(_two_numbers(random))
    if a < 20:
        return draw_subtraction(random)
    borrow = int(a % 10 < b % 10)
    answer = SUBTRACTION_ANSWER.format(
        a_ones=a % 10 + 10 * borrow,
        b_ones=b % 10,
        ones=(a - b) % 10,
        a_tens=a // 10,
        b_tens=b // 10,
        borrow=borrow,
        tens=(a - b) // 10,
        c=a - b,
    )
    wordings = tuple((wording, answer) for wording in SUBTRACTION)
    return _asked(random, "subtraction", wordings, f"{a} {b}", a=_number(a), b=_number(b))


def draw_multiplication(random: Random) -> Question:
    """The table of 2 to 9, a fact: every product is taught, not in every wording."""
    a, b = random.randrange(2, 10), random.randrange(2, 10)
    values = {"a": _number(a), "b": _number(b), "c": _number(a * b)}
    return _asked(random, "multiplication", MULTIPLICATION, **values)


def draw_parity(random: Random) -> Question:
    """Even or odd, 1 to 999."""
    n = random.randrange(1, 1000)
    word = _number(n)
    divides = (
        f"네, {word:은/는} 2로 나누어떨어집니다."
        if n % 2 == 0
        else f"아니요, {word:은/는} 2로 나누어떨어지지 않습니다."
    )
    values = {"n": word, "parity": ("짝수", "홀수")[n % 2], "remainder": n % 2, "divides": divides}
    return _asked(random, "parity", PARITY, str(n), **values)


def draw_numeral(random: Random) -> Question:
    """Reading and writing Sino-Korean numerals, 1 to 999."""
    n = random.randrange(1, 1000)
    return _asked(random, "numeral", NUMERAL, str(n), n=_number(n), sino=Word(sino_numeral(n)))


def draw_counting(random: Random) -> Question:
    """Native Korean numerals, 1 to 99."""
    n = random.randrange(1, 100)
    return _asked(random, "counting", COUNTING, str(n), n=_number(n), native=Word(native_numeral(n)))


def draw_month(random: Random) -> Question:
    """How long a month is, its neighbours and its season; facts."""
    month = random.randrange(12)
    values: dict[str, object] = {
        "month": month + 1,
        "days": facts.DAYS_IN_MONTH[month],
        "next": (month + 1) % 12 + 1,
        "previous": (month - 1) % 12 + 1,
        "season": facts.SEASONS[month],
    }
    return _asked(random, "month", MONTH, None, **values)


def draw_weekday(random: Random) -> Question:
    """The weekday some days before or after another; facts: there are no more of them than of products."""
    today = random.randrange(7)
    distance = random.choice((1, 2, 3)) * random.choice((1, -1))
    wordings = WEEKDAY_NEAR.get(distance, ()) + (WEEKDAY_AFTER if distance > 0 else WEEKDAY_BEFORE)
    values: dict[str, object] = {
        "today": facts.WEEKDAYS[today],
        "n": abs(distance),
        "day": facts.WEEKDAYS[(today + distance) % 7],
    }
    return _asked(random, "weekday", wordings, None, **values)


def draw_date(random: Random) -> Question:
    """The day after a date. Ends of months are facts: their key is the text of the question.

    February 28 is left out: what follows depends on the year.
    """
    month = random.randrange(12)
    day = random.randrange(1, facts.DAYS_IN_MONTH[month] + (month != 1))
    is_last = day == facts.DAYS_IN_MONTH[month]
    values = {
        "month": month + 1,
        "day": day,
        "next_month": (month + is_last) % 12 + 1,
        "next_day": 1 if is_last else day + 1,
    }
    return _asked(random, "date", DATE, None if is_last else f"{month + 1} {day}", **values)


def draw_capital(random: Random) -> Question:
    """A capital or its country; facts."""
    country, capital = random.choice(tuple(facts.CAPITALS.items()))
    return _asked(random, "capital", CAPITAL + COUNTRY, country=Word(country), capital=Word(capital))


def draw_opposite(random: Random) -> Question:
    """A word and its opposite; facts."""
    pair = random.choice(facts.OPPOSITES)
    word, other = random.sample(pair, 2)
    return _asked(random, "opposite", OPPOSITE, word=Word(word), other=Word(other))


def draw_counter(random: Random) -> Question:
    """The unit things are counted in; facts."""
    noun, unit = random.choice(tuple(facts.COUNTERS.items()))
    return _asked(random, "counter", COUNTER, noun=Word(noun), unit=Word(unit))


def draw_particle(random: Random) -> Question:
    """The right particle after a noun; facts: a token does not show whether its last syllable is closed."""
    noun = Word(random.choice(ASKED_NOUNS))
    first, second = random.choice(ASKED_PARTICLES)
    right = particle(noun, first, second)
    has_final = final_consonant(noun) > 0
    values = {
        "noun": noun,
        "first": Word(first),
        "second": Word(second),
        "right": Word(right),
        "joined": Word(noun + right),
        "final": "네, 받침이 있습니다." if has_final else "아니요, 받침이 없습니다.",
    }
    return _asked(random, "particle", PARTICLE, **values)


def draw_introduction(random: Random) -> Question:
    """Someone gives a name and is greeted by it; the key is the name."""
    name = draw_name(random)
    return _asked(random, "introduction", INTRODUCTION, name, name=name)


def draw_greeting(random: Random) -> Question:
    """Small talk; facts, so to speak: every phrase is taught, not after every form of address."""
    answer, phrases = random.choice(tuple(GREETINGS.items()))
    question = random.choice(ADDRESSES) + random.choice(phrases)
    return Question("greeting", question, (Message("user", question),), answer)


def draw_name_memory(random: Random) -> Question:
    """A name given at the start of a conversation and asked for later; the key is the name."""
    start = draw_introduction(random)
    asked = _asked(random, "name_memory", NAME_MEMORY, start.key, name=start.key)
    return _later(random, start, asked)


def draw_number_memory(random: Random) -> Question:
    """A number given at the start of a conversation and asked for later, 1 to 999; the key is the number."""
    n = random.randrange(1, 1000)
    start = _asked(random, "number_memory", NUMBER_GIVEN, str(n), n=_number(n))
    asked = _asked(random, "number_memory", NUMBER_MEMORY, str(n), n=_number(n))
    return _later(random, start, asked)


def _later(random: Random, start: Question, asked: Question) -> Question:
    """`asked`, in a conversation that began with `start` and perhaps spoke of something else."""
    between: tuple[Message, ...] = ()
    if random.random() < DIGRESSION_SHARE:
        between = draw_question(random.choice(DIGRESSIONS), random, held_out=False).conversation
    return Question(asked.kind, asked.key, (*start.conversation, *between, *asked.messages), asked.answer)


def draw_question(kind: str, random: Random, *, held_out: bool) -> Question:
    """One question of a kind, from the side of the split that is asked for."""
    while True:
        question = KINDS[kind](random)
        if question.is_held_out == held_out:
            return question


NOUN_KINDS: Final = frozenset({"introduction", "name_memory"})
"""Kinds whose key is a noun or a name: they share one split."""
ASKED_NOUNS: Final = facts.NOUNS[:60]
DIGRESSION_SHARE: Final = 0.4
DIGRESSIONS: Final = ("greeting", "capital", "month", "opposite")
ASKED_PARTICLES: Final = (("은", "는"), ("이", "가"), ("을", "를"), ("과", "와"), ("으로", "로"))
KINDS: Final[Mapping[str, Draw]] = {
    "addition": draw_addition,
    "subtraction": draw_subtraction,
    "multiplication": draw_multiplication,
    "parity": draw_parity,
    "numeral": draw_numeral,
    "counting": draw_counting,
    "month": draw_month,
    "weekday": draw_weekday,
    "date": draw_date,
    "capital": draw_capital,
    "opposite": draw_opposite,
    "counter": draw_counter,
    "particle": draw_particle,
    "introduction": draw_introduction,
    "greeting": draw_greeting,
    "name_memory": draw_name_memory,
    "number_memory": draw_number_memory,
}
