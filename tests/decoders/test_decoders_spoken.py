import pytest

from decoders.spoken import spoken_english
from decoders.spoken_zh import spoken_chinese

ENGLISH = [
    # numbers and mathematics
    ("2 x 3 = 6", "2 times 3 = 6"),
    ("5 × 6", "5 times 6"),
    ("2*3", "2 times 3"),
    ("10 / 2 = 5", "10 divided by 2 = 5"),
    ("7 - 3 = 4", "7 minus 3 = 4"),
    ("2 + 2", "2 plus 2"),
    ("x < 5", "x is less than 5"),
    ("x >= 5", "x is greater than or equal to 5"),
    ("a != b", "a is not equal to b"),
    ("≈ 3", "is about 3"),
    ("~100", "about 100"),
    ("√16", "the square root of 16"),
    ("sqrt(16)", "the square root of 16"),
    ("x^2", "x squared"),
    ("10⁻³", "10 to the power of minus 3"),
    ("2**10", "2^10"),
    ("1e-5", "1 times 10 to the power of minus 5"),
    ("\\(\\frac{1}{2} \\times 4\\)", "1 over 2 times 4"),
    ("2 1/2 cups", "2 and a half cups"),
    ("2½ cups", "2 and a half cups"),
    ("⅔ of it", "two thirds of it"),
    ("007", "0 0 7"),
    ("13812345678", "1 3 8 1 2 3 4 5 6 7 8"),
    ("a 16:9 screen", "a 16 to 9 screen"),
    ("10x faster", "10 times faster"),
    # dates and times
    ("25.12.2024", "December 25, 2024"),
    ("Mon-Fri", "Monday to Friday"),
    ("Sept. 3rd", "Sept 3rd"),
    ("1:30:00", "1 hour, 30 minutes"),
    ("c. 1500", "around 1500"),
    ("24/7", "twenty four seven"),
    ("in the 1990s", "in the 1990s"),
    ("at 10:30 a.m.", "at 10:30 a.m."),
    # money
    ("20€", "20 euros"),
    ("1 €", "1 euro"),
    ("500 USD", "500 dollars"),
    ("$10-20", "10 to 20 dollars"),
    ("-$5", "minus $5"),
    ("10-20%", "10 to 20%"),
    # units
    ("10 m", "10 meters"),
    ("1 m", "1 meter"),
    ("100 m²", "100 square meters"),
    ("9.8 m/s²", "9.8 meters per second squared"),
    ("60 km/h", "60 kilometers per hour"),
    ("3 g of sugar", "3 grams of sugar"),
    ("6'2\"", "6 foot 2"),
    ("10 in.", "10 inches."),
    ("10 in the bag", "10 in the bag"),
    ("3 s.", "3 seconds."),
    ("$5m", "$5m"),
    # phones, addresses, codes
    ("+1 (555) 123-4567", "plus 1, 5 5 5, 1 2 3, 4 5 6 7"),
    ("(555) 123-4567", "5 5 5, 1 2 3, 4 5 6 7"),
    ("zip code 90210", "zip code 9 0 2 1 0"),
    ("bob.smith@example.com", "bob dot smith at example dot com"),
    ("https://www.example.com/path?x=1", "example dot com slash path"),
    ("See example.com.", "See example dot com."),
    ("192.168.1.1", "1 9 2 dot 1 6 8 dot 1 dot 1"),
    ("v2.1.3", "version 2 point 1 point 3"),
    ("CO2 and H₂O", "C O 2 and H 2 O"),
    ("C# and C++", "C sharp and C++"),
    # abbreviations and names
    ("fruit, e.g. pears", "fruit, for example, pears"),
    ("i.e. now", "that is, now"),
    ("cats vs. dogs", "cats versus dogs"),
    ("No. 5", "number 5"),
    ("I said no.", "I said no ."),
    ("J. K. Rowling", "J K Rowling"),
    ("U.S. troops", "U.S. troops"),
    ("Henry VIII", "Henry the 8th"),
    ("King Louis XIV", "King louis the 14th"),
    ("King Charles", "King charles"),
    ("World War II", "World War II"),
    ("Chapter IV", "Chapter IV"),
    ("the book I read", "the book [I](/ˌI/) read"),
    ("George I am", "George I am"),
    ("Ordinary words stay, as they are.", "Ordinary words stay, as they are."),
]

CHINESE = [
    ("今天是2024年3月5日。", "今天是二零二四年三月五日。"),
    ("2024-03-05开会", "二零二四年三月五日开会"),
    ("现在是10:30。", "现在是十点半。"),
    ("增长了50%", "增长了百分之五十"),
    ("价格是￥99.5", "价格是九十九点五元"),
    ("价格是￥99.5元", "价格是九十九点五元"),
    ("3.14", "三点一四"),
    ("温度是25°C", "温度是二十五度"),
    ("1/2", "二分之一"),
    ("5-10个人", "五到十个人"),
    ("1,234人", "一千二百三十四人"),
    ("2+2=4", "二加二等于四"),
    ("100km", "一百公里"),
    ("电话13812345678", "电话幺三八幺二三四五六七八"),
    ("我用Python写代码。", "我用 Python 写代码。"),
    ("時間", "时间"),
    ("第3章", "第三章"),
]


@pytest.mark.parametrize(("written", "said"), ENGLISH)
def test_english_is_written_as_it_is_said(written, said):
    assert spoken_english(written) == said


@pytest.mark.parametrize(("written", "said"), CHINESE)
def test_chinese_is_written_as_it_is_said(written, said):
    assert spoken_chinese(written) == said


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("I said no.", "I said no."),
        ("King Louis XIV", "King louis the 14th"),
        ("the part I like", "the part [I](/ˌI/) like"),
        ("class Cat", "class cat"),
        ("World War II", "World War 2"),
        ("100 m²", "100 square meters"),
    ],
)
def test_what_hibari_reads_after_it_is_right(written, words):
    from hibari.g2p.normalize import normalize

    assert normalize(spoken_english(written)) == words
